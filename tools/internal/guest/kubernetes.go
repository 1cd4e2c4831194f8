package guest

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure"
	"chrysalis/measure/engines"
	"chrysalis/tools/internal/qemu"
)

// Pod says what a cluster has for guests.
type Pod struct {
	Name  string // of what is made, and what the names of claims begin with
	Image string // container image with the shape's QEMU at its usual place, and nothing else that matters
}

// Where a pod has what the host has in files.
const (
	podRelease = "/release"
	podConfig  = "/config"
	podRun     = "/run/chrysalis"
	podDisks   = "/dev/chrysalis"
	podConfigs = "config.disk"
)

// Kubernetes returns what a cluster needs for guests of the spec, as a List in JSON: a ConfigMap with the config disk, a Service, and a
// StatefulSet whose pod runs the very QEMU line of Arguments over paths of its own. So nothing that is measured moves: the guest's
// shape is the spec's. KubeVirt's VirtualMachine can't carry it: its launchSecurity has no word for MRCONFIGID, HOST_DATA or the hashes of
// an SEV-SNP guest's kernel.
//
// Each replica has a journal of its own, so each is a guest with keys of its own: a secret is never shared.
func (g Guest) Kubernetes(spec Spec, pod Pod) ([]byte, error) {
	list, err := g.kubernetes(spec, pod)
	if err != nil {
		return nil, fmt.Errorf("describing the guest for Kubernetes: %w", err)
	}
	return list, nil
}

func (g Guest) kubernetes(spec Spec, pod Pod) ([]byte, error) {
	s := spec.Shape
	switch {
	case s.Platform == "" || s.Accelerator != measure.KVM:
		return nil, fmt.Errorf("shape is of %s under %s, want %s or %s on hardware: a pod has no TPM, and nothing that plays hardware",
			map[bool]string{true: "a vtpm", false: string(s.Platform)}[s.Platform == ""], s.Accelerator, measure.TDX, measure.SEVSNP)
	case spec.Disk != "":
		return nil, fmt.Errorf("guest boots the disk %s, want the release's kernel directly", spec.Disk)
	case pod.Image == "":
		return nil, fmt.Errorf("no container image is named, want one with QEMU %s", s.QEMU)
	}
	f, err := g.files(spec)
	if err != nil {
		return nil, err
	}
	disk, err := configDisk(spec, spec.Hardware.Endorsements)
	if err != nil {
		return nil, err
	}
	if len(disk) > maxConfigMapBytes {
		return nil, fmt.Errorf("config disk has %d bytes, and a ConfigMap holds %d: leave the collateral to clients", len(disk), maxConfigMapBytes)
	}
	release := func(name string) string { return path.Join(podRelease, name) }
	f.firmware, f.kernel, f.initrd, f.root = release(s.Firmware.Name), release("vmlinuz"), release("initrd"), release("root.img")
	f.config, f.journal = path.Join(podConfig, podConfigs), path.Join(podDisks, "journal")
	claimed := VolumeNames(len(f.volumes))
	f.volumes = slices.Clone(f.volumes)
	for at := range f.volumes {
		f.volumes[at] = Volumes{path.Join(podDisks, claimed[2*at]), path.Join(podDisks, claimed[2*at+1])}
	}
	f.status, f.proofs, f.numbers = path.Join(podRun, StatusFile), path.Join(podRun, ProofsFile), path.Join(podRun, NumbersFile)
	f.qmp, f.pid = path.Join(podRun, monitorFile), path.Join(podRun, "qemu.pid")
	f.listen, f.hostPort = "", guestPort // the pod's own address
	args, err := arguments(s, f)
	if err != nil {
		return nil, err
	}

	type object = map[string]any
	labels := object{"app.kubernetes.io/name": "chrysalis", "app.kubernetes.io/instance": pod.Name}
	meta := func(name string) object { return object{"name": name, "labels": labels} }
	var volumes, mounts, blocks []object
	mount := func(name, at string, source object, readOnly bool) {
		source["name"] = name
		volumes = append(volumes, source)
		mounts = append(mounts, object{"name": name, "mountPath": at, "readOnly": readOnly})
	}
	claim := func(name string) object { return object{"claimName": pod.Name + "-" + name, "readOnly": true} }
	mount("config", podConfig, object{"configMap": object{"name": pod.Name}}, true)
	mount("release", podRelease, object{"persistentVolumeClaim": claim("release")}, true)
	mount("run", podRun, object{"emptyDir": object{}}, false)
	for _, node := range podDevices(s, spec.Hardware) {
		kind := "CharDevice"
		if strings.HasSuffix(node, "/") {
			kind = "Directory"
		}
		node = path.Clean(node)
		mount("host-"+path.Base(node), node, object{"hostPath": object{"path": node, "type": kind}}, false)
	}
	for _, name := range claimed {
		volumes = append(volumes, object{"name": name, "persistentVolumeClaim": claim(name)})
		blocks = append(blocks, object{"name": name, "devicePath": path.Join(podDisks, name)})
	}
	blocks = append(blocks, object{"name": "journal", "devicePath": path.Join(podDisks, "journal")})
	ready := object{"exec": object{"command": []string{"grep", "-q", "^serving ", f.status}}}
	container := object{
		"name": "qemu", "image": pod.Image, "command": append([]string{qemu.Program}, args...),
		"ports":           []object{{"name": "https", "containerPort": guestPort}},
		"resources":       object{"requests": podResources(s), "limits": podResources(s)},
		"securityContext": object{"privileged": true}, // for the host's devices; nothing of it reaches into the guest
		"startupProbe":    merged(ready, object{"periodSeconds": 2, "failureThreshold": 150}),
		"readinessProbe":  merged(ready, object{"periodSeconds": 10}),
		"volumeMounts":    mounts, "volumeDevices": blocks,
	}
	items := []object{
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(pod.Name), "immutable": true, "binaryData": object{podConfigs: disk}},
		{"apiVersion": "v1", "kind": "Service", "metadata": meta(pod.Name), "spec": object{"clusterIP": "None", "selector": labels,
			"ports": []object{{"name": "https", "port": guestPort, "targetPort": "https"}}}},
		{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta(pod.Name), "spec": object{
			"serviceName": pod.Name, "replicas": 1, "selector": object{"matchLabels": labels},
			"template": object{"metadata": object{"labels": labels}, "spec": object{
				"automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 10,
				// Two guests of one machine would have one vsock address.
				"affinity": object{"podAntiAffinity": object{"requiredDuringSchedulingIgnoredDuringExecution": []object{
					{"topologyKey": "kubernetes.io/hostname", "labelSelector": object{"matchLabels": labels}}}}},
				"containers": []object{container}, "volumes": volumes,
			}},
			"volumeClaimTemplates": []object{{"metadata": object{"name": "journal"}, "spec": object{"accessModes": []string{"ReadWriteOnce"},
				"volumeMode": "Block", "resources": object{"requests": object{"storage": fmt.Sprintf("%dMi", journalBytes>>20)}}}}},
		}},
	}
	data, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": items}, json.Deterministic(true), jsontext.WithIndent("  "))
	return append(data, '\n'), err
}

// VolumeNames are what the engines' and models' volumes of so many models are called: engine and model of each in turn.
func VolumeNames(models int) (names []string) {
	for at := range models {
		names = append(names, engines.Nth("engine", at, models), engines.Nth("model", at, models))
	}
	return names
}

// maxConfigMapBytes bounds a ConfigMap's data.
const maxConfigMapBytes = 1 << 20

// podMemoryMiB is what QEMU takes beside the guest's memory.
const podMemoryMiB = 512

func podResources(s measure.Shape) map[string]any {
	return map[string]any{"cpu": fmt.Sprint(s.CPUs), "memory": fmt.Sprintf("%dMi", s.MemoryMiB+podMemoryMiB)}
}

// podDevices are the host's devices and folders that QEMU opens; a folder ends in a slash.
func podDevices(s measure.Shape, h Hardware) []string {
	nodes := []string{"/dev/kvm"}
	if s.Platform == measure.SEVSNP {
		nodes = append(nodes, "/dev/sev")
	}
	if HasVsock(s) {
		nodes = append(nodes, "/dev/vhost-vsock")
	}
	if len(s.GPUs) > 0 {
		nodes = append(nodes, "/dev/iommu", "/dev/vfio/")
	}
	if socket, unix := strings.CutPrefix(h.QuoteSocket, "unix:"); unix {
		nodes = append(nodes, path.Dir(socket)+"/")
	}
	return nodes
}

func merged(a, b map[string]any) map[string]any {
	for name, value := range a {
		b[name] = value
	}
	return b
}
