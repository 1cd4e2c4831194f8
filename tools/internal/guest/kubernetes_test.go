package guest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	strict "sigs.k8s.io/json"

	"chrysalis/measure"
	"chrysalis/measure/register"
)

// podSpec is a guest on hardware of the platform over a folder that stands for a release.
func podSpec(t *testing.T, p measure.Platform, h Hardware) Spec {
	t.Helper()
	spec := Spec{Release: t.TempDir(), Engine: "/engine.img", Model: "/model.img", Shape: hardwareShape(t, p), Hardware: h, Config: DemoConfigOn(p)}
	if err := os.WriteFile(filepath.Join(spec.Release, "cmdline"), []byte("quiet"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec.Config.Service.Engine.Volume.Root, spec.Config.Service.Engine.Volume.Blocks = register.Digest{1}, 1
	spec.Config.Service.Model.Volume = spec.Config.Service.Engine.Volume
	return spec
}

// TestKubernetes decodes manifests into Kubernetes' own types as its API does with fieldValidation=Strict: no unknown and no
// repeated field. Then it looks at what a schema does not hold: that names meet.
func TestKubernetes(t *testing.T) {
	for name, spec := range map[string]Spec{
		"tdx":     podSpec(t, measure.TDX, Hardware{QuoteSocket: UnixQuoteSocket}),
		"sev-snp": podSpec(t, measure.SEVSNP, Hardware{SNPPolicy: DefaultSNPPolicy}),
	} {
		t.Run(name, func(t *testing.T) {
			g := Guest{Dir: "/guest"}
			list, err := g.Kubernetes(spec, Pod{Name: "box", Image: "qemu:11.1.3"})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".kubernetes.json", string(list))
			var items struct {
				APIVersion string            `json:"apiVersion"`
				Kind       string            `json:"kind"`
				Items      []json.RawMessage `json:"items"`
			}
			decode(t, list, &items)
			if len(items.Items) != 3 {
				t.Fatalf("got %d objects, want 3", len(items.Items))
			}
			var configs corev1.ConfigMap
			var service corev1.Service
			var set appsv1.StatefulSet
			decode(t, items.Items[0], &configs)
			decode(t, items.Items[1], &service)
			decode(t, items.Items[2], &set)
			if disk, err := configDisk(spec, spec.Hardware.Endorsements); err != nil || string(configs.BinaryData[podConfigs]) != string(disk) {
				t.Errorf("config disk is not the spec's: %v", err)
			}
			pod := set.Spec.Template
			for what, labels := range map[string]map[string]string{"service": service.Spec.Selector, "set": set.Spec.Selector.MatchLabels} {
				for name, value := range labels {
					if pod.Labels[name] != value {
						t.Errorf("%s selects %s=%s, and the pod has %q", what, name, value, pod.Labels[name])
					}
				}
			}
			container := pod.Spec.Containers[0]
			have := map[string]bool{}
			for _, v := range pod.Spec.Volumes {
				have[v.Name] = true
			}
			for _, c := range set.Spec.VolumeClaimTemplates {
				have[c.Name] = true
			}
			for _, m := range container.VolumeMounts {
				if !have[m.Name] {
					t.Errorf("%s is mounted and not there", m.Name)
				}
				delete(have, m.Name)
			}
			for _, d := range container.VolumeDevices {
				if !have[d.Name] || !slices.ContainsFunc(container.Command, func(word string) bool { return strings.HasSuffix(word, ",file="+d.DevicePath) }) {
					t.Errorf("%s is a device at %s, and not there or not a disk of QEMU's", d.Name, d.DevicePath)
				}
				delete(have, d.Name)
			}
			if len(have) > 0 {
				t.Errorf("volumes that nobody uses: %v", have)
			}
			// The line is that of up, word by word, but for paths and the address that it listens at.
			here, err := g.Arguments(spec)
			if err != nil {
				t.Fatal(err)
			}
			if len(here)+1 != len(container.Command) {
				t.Fatalf("pod's line has %d words, want %d", len(container.Command), len(here)+1)
			}
			for i, word := range here {
				there := container.Command[i+1]
				if word != there && !strings.Contains(word, "/") && !strings.Contains(word, "hostfwd=") {
					t.Errorf("word %d is %q, want %q", i, there, word)
				}
			}
		})
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	unknown, err := strict.UnmarshalStrict(data, into)
	if err != nil || len(unknown) > 0 {
		t.Fatalf("decoding %.80s: %v, %v", data, unknown, err)
	}
}

// TestKubernetesDecoder: the decoder of the test above sees what is wrong.
func TestKubernetesDecoder(t *testing.T) {
	for _, wrong := range []string{`{"spec":{"launchSecurity":{}}}`, `{"spec":{"replicas":1,"replicas":1}}`} {
		if unknown, err := strict.UnmarshalStrict([]byte(wrong), &appsv1.StatefulSet{}); err != nil || len(unknown) == 0 {
			t.Errorf("%s: got %v and error %v, want a refusal", wrong, unknown, err)
		}
	}
}

// TestPodDevices: a pod gets the devices that its QEMU opens, and no others.
func TestPodDevices(t *testing.T) {
	for _, tt := range []struct {
		shape    measure.Shape
		hardware Hardware
		want     string
	}{
		{measure.Shape{Platform: measure.SEVSNP}, Hardware{}, "/dev/kvm /dev/sev"},
		{measure.Shape{Platform: measure.TDX}, Hardware{QuoteSocket: DefaultQuoteSocket}, "/dev/kvm"},
		{WithVsock(measure.Shape{Platform: measure.TDX, GPUs: []string{"vfio-pci"}}, 3), Hardware{QuoteSocket: UnixQuoteSocket},
			"/dev/kvm /dev/vhost-vsock /dev/iommu /dev/vfio/ /var/run/tdx-qgs/"},
	} {
		if got := strings.Join(podDevices(tt.shape, tt.hardware), " "); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestKubernetesRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(*Spec, *Pod)
	}{
		{"a vtpm", "a vtpm under kvm", func(s *Spec, _ *Pod) { s.Shape.Platform = "" }},
		{"software", "tdx under tcg", func(s *Spec, _ *Pod) { s.Shape.Accelerator = measure.TCG }},
		{"a disk", "boots the disk", func(s *Spec, _ *Pod) { s.Disk = "x.raw" }},
		{"no image", "want one with QEMU 11.1.3", func(_ *Spec, p *Pod) { p.Image = "" }},
		{"a policy of another platform", "policy of SEV-SNP", func(s *Spec, _ *Pod) { s.Hardware.SNPPolicy = DefaultSNPPolicy }},
	} {
		spec, pod := podSpec(t, measure.TDX, Hardware{}), Pod{Name: "box", Image: "qemu"}
		tt.change(&spec, &pod)
		if _, err := (Guest{Dir: "/guest"}).Kubernetes(spec, pod); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}
