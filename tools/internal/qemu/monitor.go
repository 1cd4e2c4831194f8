package qemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// maxReplyBytes bounds a line of QEMU's monitor.
	maxReplyBytes = 1 << 20
	// maxReplyTime bounds all of a conversation. On a busy machine an emulated guest keeps the monitor waiting for seconds.
	maxReplyTime = 10 * time.Second
	// maxSaveTime bounds how long the monitor writes a machine's memory.
	maxSaveTime = 2 * time.Minute
)

// ask opens QEMU's monitor at socket, gives one command and decodes what it returns.
func ask(socket, command string, arguments map[string]string, into any) error {
	return askWithin(maxReplyTime, socket, command, arguments, into)
}

func askWithin(limit time.Duration, socket, command string, arguments map[string]string, into any) error {
	conn, err := net.DialTimeout("unix", socket, min(limit, time.Second))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	replies := bufio.NewScanner(conn)
	replies.Buffer(nil, maxReplyBytes)
	if !replies.Scan() {
		return fmt.Errorf("monitor sent no greeting: %v", replies.Err())
	}
	var reply struct {
		Event  string          `json:"event"`
		Return json.RawMessage `json:"return"`
		Error  json.RawMessage `json:"error"`
	}
	for _, c := range []struct {
		Execute   string            `json:"execute"`
		Arguments map[string]string `json:"arguments,omitempty"`
	}{{Execute: "qmp_capabilities"}, {command, arguments}} {
		line, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if _, err := conn.Write(append(line, '\n')); err != nil {
			return err
		}
		for {
			if !replies.Scan() {
				return fmt.Errorf("monitor did not answer %s: %v", c.Execute, replies.Err())
			}
			reply.Event, reply.Return, reply.Error = "", nil, nil
			if err := json.Unmarshal(replies.Bytes(), &reply); err != nil {
				return err
			}
			if reply.Error != nil {
				return fmt.Errorf("monitor refuses %s: %.200s", c.Execute, reply.Error)
			}
			if reply.Event == "" {
				break
			}
		}
	}
	return json.Unmarshal(reply.Return, into)
}

// machineState is the state of the machine: "running", "internal-error", ….
func machineState(limit time.Duration, socket string) (string, error) {
	var state struct {
		Status string `json:"status"`
	}
	err := askWithin(limit, socket, "query-status", nil, &state)
	return state.Status, err
}

// Says returns in words what QEMU says of the machine whose monitor listens at socket, and waits for no longer than limit.
func Says(limit time.Duration, socket string) string {
	state, err := machineState(limit, socket)
	if err != nil {
		return fmt.Sprintf("QEMU does not say what it does: %v", err)
	}
	return "QEMU says that the machine is " + state
}

// cpu returns the first CPU as its guest sees it.
func cpu(socket string) (c CPU, err error) {
	for property, into := range map[string]any{"vendor": &c.Vendor, "phys-bits": &c.PhysBits} {
		// The first device that stands nowhere in the tree is the first CPU.
		if err := ask(socket, "qom-get", map[string]string{"path": "/machine/unattached/device[0]", "property": property}, into); err != nil {
			return CPU{}, err
		}
	}
	return c, nil
}

// Where says what the machine whose monitor listens at socket is doing, for a message about a guest that does nothing: its state, and
// where each of its processors is.
func Where(socket string) string {
	state, err := machineState(maxReplyTime, socket)
	if err != nil {
		return fmt.Sprintf("QEMU does not say what it does: %v", err)
	}
	var registers string
	if err := ask(socket, "human-monitor-command", map[string]string{"command-line": "info registers -a"}, &registers); err != nil {
		return fmt.Sprintf("the machine is %s: %v", state, err)
	}
	return fmt.Sprintf("the machine is %s at %s", state, strings.Join(instructionPointer.FindAllString(registers, maxPlaces), ", "))
}

// maxPlaces bounds the processors of which Where speaks.
const maxPlaces = 16

// instructionPointer is where a processor is, in the text of QEMU's monitor.
var instructionPointer = regexp.MustCompile(`[ER]IP=[0-9a-f]+`)

// netID is the name of a guest's network in QEMU.
const netID = "net0"

// Unforward takes a forwarded port of this machine from QEMU's user network: nobody connects to the guest by it any more, and who has
// connected stays so. One that was taken away before is no error.
func Unforward(socket, address string, port int) error {
	rule := fmt.Sprintf("tcp:%s:%d", address, port)
	var said string
	if err := ask(socket, "human-monitor-command", map[string]string{"command-line": "hostfwd_remove " + netID + " " + rule}, &said); err != nil {
		return err
	}
	if !strings.Contains(said, "removed") && !strings.Contains(said, "not found") {
		return fmt.Errorf("monitor does not take %s away: %.200q", rule, strings.TrimSpace(said))
	}
	return nil
}

// Connections returns how many connections to a port of the guest the user network has.
func Connections(socket string, guestPort int) (int, error) {
	var said string
	if err := ask(socket, "human-monitor-command", map[string]string{"command-line": "info usernet"}, &said); err != nil {
		return 0, err
	}
	return connections(said, guestPort)
}

// connections counts in the text of QEMU's monitor. A connection is a line of eight words: protocol with state, descriptor, two addresses
// with their ports, two queues.
func connections(text string, guestPort int) (n int, err error) {
	if !strings.Contains(text, "Protocol[State]") {
		return 0, fmt.Errorf("monitor speaks of no user network: %.200q", text)
	}
	for line := range strings.Lines(text) {
		word := strings.Fields(line)
		if len(word) == 8 && word[0] == "TCP[ESTABLISHED]" && word[5] == strconv.Itoa(guestPort) {
			n++
		}
	}
	return n, nil
}

// SaveMemory has QEMU write the machine's first size bytes of memory into a file, while its CPUs stand still. It takes seconds for each gigabyte.
func SaveMemory(socket, file string, size uint64) (err error) {
	if strings.ContainsAny(file, "\"\\\n") {
		return fmt.Errorf("saving memory: %q can't be told to the monitor", file)
	}
	if err := Pause(socket); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Resume(socket)) }()
	var said string
	command := fmt.Sprintf(`pmemsave 0 %d "%s"`, size, file)
	if err := askWithin(maxSaveTime, socket, "human-monitor-command", map[string]string{"command-line": command}, &said); err != nil {
		return err
	}
	if said != "" {
		return fmt.Errorf("monitor does not save memory: %.200q", strings.TrimSpace(said))
	}
	return nil
}

// Pause stops the CPUs of the machine whose monitor listens at socket.
func Pause(socket string) error { return ask(socket, "stop", nil, &struct{}{}) }

// Resume lets them go on.
func Resume(socket string) error { return ask(socket, "cont", nil, &struct{}{}) }
