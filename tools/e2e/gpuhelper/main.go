// Command gpuhelper is the helper of a guest's GPUs for tests: it asks for what a driver would know at a port of the host's, where a test
// answers for GPUs of software, and looks on the bus itself for which there are and whether they are there still. No release has it.
package main

import (
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/init/gpuhelper"
)

// port is the name of the host's port.
const port = "org.chrysalis.gpu"

func main() {
	log.SetFlags(0)
	host, err := openPort()
	if err != nil {
		log.Fatal(err)
	}
	d := &driver{host: gpuhelper.New(host)}
	requests, beats := os.NewFile(3, "requests"), os.NewFile(4, "beats")
	go func() {
		for {
			said := []byte{0} // one is lost
			if d.well() {
				said[0] = 1
			}
			if _, err := beats.Write(said); err != nil || said[0] == 0 {
				log.Fatalf("a GPU is lost, or init is: %v", err)
			}
			time.Sleep(gpuhelper.BeatEvery)
		}
	}()
	log.Fatal(gpuhelper.Serve(requests, d))
}

// openPort opens the host's port, whose deadlines the runtime keeps.
func openPort() (net.Conn, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != port {
			continue
		}
		f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(file))), os.O_RDWR, 0)
		return conn{f}, err
	}
	return nil, errors.New("there is no port " + port)
}

// conn is a device as a connection. It has no addresses, and nobody asks for them.
type conn struct{ *os.File }

func (conn) LocalAddr() net.Addr  { return nil }
func (conn) RemoteAddr() net.Addr { return nil }

// driver is what the host says of GPUs that are on the bus.
type driver struct{ host *gpuhelper.Helper }

func (d *driver) State() (gpuhelper.State, error) {
	s, err := d.host.State()
	if err != nil {
		return s, err
	}
	for _, dir := range gpus() {
		s.Devices = append(s.Devices, gpuhelper.Device{Kind: evidence.KindGPU, Address: filepath.Base(dir)})
	}
	return s, nil
}

func (d *driver) Evidence(nonce [32]byte) ([]evidence.Device, error) { return d.host.Evidence(nonce) }

func (d *driver) SetReady(ready bool) error { return d.host.SetReady(ready) }

// gpus are the folders of the devices with NVIDIA's number.
func gpus() (found []string) {
	files, _ := filepath.Glob("/sys/bus/pci/devices/*/vendor")
	for _, file := range files {
		if vendor, err := os.ReadFile(file); err == nil && string(vendor) == "0x10de\n" {
			found = append(found, filepath.Dir(file))
		}
	}
	slices.Sort(found)
	return found
}

// well reports whether each device answers still: one that is gone reads as all ones.
func (d *driver) well() bool {
	all := gpus()
	for _, dir := range all {
		number := make([]byte, 2) // the whole space takes a thousand words with the host
		f, err := os.Open(filepath.Join(dir, "config"))
		if err == nil {
			_, err = io.ReadFull(f, number)
			f.Close()
		}
		if err != nil || !bytes.Equal(number, []byte{0xde, 0x10}) {
			log.Printf("%s reads %x (error %v)", dir, number, err)
			return false
		}
	}
	return len(all) > 0
}
