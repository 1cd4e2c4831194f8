package metrics

import (
	"strconv"
	"strings"
)

// ContentType is that of Text: Prometheus' text format, version 0.0.4.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// infoName is the metric that carries words.
const infoName = prefix + "guest_info"

// infoHelp says what it is.
const infoHelp = "1, with the guest's state and model as labels"

// Text returns the guests in Prometheus' text format. What is not known of a guest is left out.
func Text(guests []Guest) []byte {
	var b strings.Builder
	head := func(name, help, kind string) {
		b.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
	}
	head(infoName, infoHelp, gauge)
	for _, g := range guests {
		b.WriteString(infoName + `{guest="` + label(g.Name) + `",state="` + label(g.State) + `",model="` + label(g.Model) + "\"} 1\n")
	}
	for _, m := range All() {
		head(m.Name, m.Help, m.Kind)
		for _, g := range guests {
			if v, known := m.value(g); known {
				b.WriteString(m.Name + `{guest="` + label(g.Name) + `"} ` + strconv.FormatFloat(v, 'f', -1, 64) + "\n")
			}
		}
	}
	return []byte(b.String())
}

// label escapes a label's value.
func label(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(strings.ToValidUTF8(s, "?"))
}
