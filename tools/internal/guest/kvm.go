package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"chrysalis/tools/internal/toolstree"
)

// kvmTrial is how long the firmware has to run for KVM to count as working. Where it does not, the first emulated
// instruction stops the machine within milliseconds.
const kvmTrial = 1500 * time.Millisecond

// Accelerated reports whether this machine's virtualisation runs the firmware. A device node alone says little: on nested
// machines KVM may open, and stop at the first instruction that it would have to emulate.
func Accelerated(ctx context.Context, tree toolstree.Tree, firmware string) bool {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	dir, err := os.MkdirTemp("", "chrysalis-kvm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "qmp.sock")
	cmd := tree.Command(ctx, "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escape(firmware),
		"-qmp", "unix:"+escape(socket)+",server=on,wait=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return false
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for end := time.Now().Add(kvmTrial); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if state, err := machineState(socket); err == nil && state != "running" {
			return false
		}
	}
	state, err := machineState(socket)
	return err == nil && state == "running"
}

// machineState asks QEMU's monitor at socket for the state of the machine: "running", "internal-error", ….
func machineState(socket string) (string, error) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	replies := bufio.NewScanner(conn)
	if !replies.Scan() {
		return "", fmt.Errorf("monitor sent no greeting: %v", replies.Err())
	}
	for _, command := range []string{"qmp_capabilities", "query-status"} {
		if _, err := fmt.Fprintf(conn, "{\"execute\":%q}\n", command); err != nil {
			return "", err
		}
		for replies.Scan() {
			var reply struct {
				Event  string `json:"event"`
				Return *struct {
					Status string `json:"status"`
				} `json:"return"`
			}
			if err := json.Unmarshal(replies.Bytes(), &reply); err != nil {
				return "", err
			}
			if reply.Event != "" {
				continue
			}
			if reply.Return != nil && command == "query-status" {
				return reply.Return.Status, nil
			}
			break
		}
	}
	return "", fmt.Errorf("monitor did not answer: %v", replies.Err())
}
