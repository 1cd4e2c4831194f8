package main

import (
	"strings"
	"text/template"
	"time"
)

// unitMark begins each file that install writes: no other is overwritten or removed.
const unitMark = "# Written by chrysalis provider install"

// stopGrace is what stopping takes beside the answers: the TPM writes its state.
const stopGrace = 30 * time.Second

func (u *unit) unitName(rest string) string { return "chrysalis-" + u.name + rest }

// files returns the units.
func (u *unit) files() []unitFile {
	return []unitFile{{u.unitName(".service"), u.render(serviceUnit)}, {u.unitName("-claims.service"), u.render(claimsUnit)}, {u.unitName("-claims.timer"), u.render(claimsTimer)}}
}

func (u *unit) render(t *template.Template) string {
	var b strings.Builder
	start := []string{u.program, "up", "--foreground", "--dir=" + u.state, "--drain=" + u.drain.String()}
	err := t.Execute(&b, map[string]any{
		"Mark": unitMark, "Name": u.name, "System": !u.user, "State": u.state, "Low": u.port < 1024,
		"Up": command(append(start, u.up...)), "Claims": command([]string{u.program, "claim", "export", "--dir=" + u.state, "--output=" + u.state + "/claims"}),
		"Start": u.wait + stopGrace, "Stop": u.drain + stopGrace,
	})
	if err != nil {
		panic(err) // of a template of ours
	}
	return b.String()
}

// command writes a command line as systemd reads it: systemd.service(5), section "Command lines".
func command(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		word = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`, "\t", `\t`).Replace(word)
		if strings.ContainsAny(word, " ';") || word == "" || strings.Contains(word, `\`) {
			word = `"` + word + `"`
		}
		words[i] = word
	}
	return strings.Join(words, " \\\n  ")
}

// hardening are the settings of both services. QEMU compiles what it emulates, so memory may be written and then run, and it forwards
// connections, so it has the network.
const hardening = `NoNewPrivileges=yes
UMask=0022
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
SystemCallArchitectures=native
{{- if .System}}
DynamicUser=yes
User=chrysalis-{{.Name}}
StateDirectory=chrysalis/{{.Name}}
StateDirectoryMode=0755
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
{{- end}}
`

var serviceUnit = template.Must(template.New("service").Parse(`{{.Mark}}: run it again to change this file.
[Unit]
Description=Chrysalis guest {{.Name}}
{{- if .System}}
Wants=network-online.target
After=network-online.target
{{- end}}
StartLimitIntervalSec=0

[Service]
# It says when the guest serves. A guest that ends is started again by the program itself, and the program by systemd.
Type=notify
TimeoutStartSec={{.Start.Seconds}}
ExecStart={{.Up}}
Restart=on-failure
RestartSec=30
# 2: the command line is wrong, and no restart mends that.
RestartPreventExitStatus=2
# The program lets answers end and powers QEMU off; what is left of both after that is cut.
KillMode=mixed
TimeoutStopSec={{.Stop.Seconds}}
` + hardening + `RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_VSOCK
{{- if .System}}
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
DeviceAllow=/dev/vhost-vsock rw
DeviceAllow=/dev/sev rw
SupplementaryGroups=kvm
{{- if .Low}}
AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
{{- else}}
CapabilityBoundingSet=
{{- end}}
{{- end}}

[Install]
WantedBy={{if .System}}multi-user.target{{else}}default.target{{end}}
`))

var claimsUnit = template.Must(template.New("claims").Parse(`{{.Mark}}: run it again to change this file.
[Unit]
Description=Claims of Chrysalis guest {{.Name}}, verified and exported

[Service]
# It fails when a claim is not proved.
Type=oneshot
ExecStart={{.Claims}}
` + hardening + `RestrictAddressFamilies=AF_UNIX
MemoryDenyWriteExecute=yes
{{- if .System}}
PrivateDevices=yes
PrivateNetwork=yes
SystemCallFilter=@system-service
CapabilityBoundingSet=
{{- end}}
`))

var claimsTimer = template.Must(template.New("timer").Parse(`{{.Mark}}: run it again to change this file.
[Unit]
Description=Claims of Chrysalis guest {{.Name}}, every hour

[Timer]
OnCalendar=hourly
RandomizedDelaySec=5min
Persistent=yes

[Install]
WantedBy=timers.target
`))
