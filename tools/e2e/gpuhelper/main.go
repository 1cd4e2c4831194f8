// Command gpuhelper is the helper of a guest's GPUs for tests: it asks for what a driver would know at a port of the host's, where a test
// answers for GPUs of software, and looks on the bus itself for which there are and whether they are there still. No release has it.
package main

import (
	"bytes"
	"errors"
	"log"
	"net"
	"os"
	"path/filepath"
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
	all, err := gpus()
	if err != nil {
		log.Fatal(err)
	}
	d := &driver{host: gpuhelper.New(host), gpus: all}
	requests, beats := os.NewFile(3, "requests"), os.NewFile(4, "beats")
	go func() {
		for n := 0; ; n++ {
			if n%lookEvery == 0 && !well(all) {
				_, err := beats.Write([]byte{0}) // one is lost
				log.Fatalf("a GPU is lost (error %v)", err)
			}
			if err := gpuhelper.Beat(beats); err != nil {
				log.Fatal(err)
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

// lookEvery is at which beats the devices are looked at: a guest under emulation stands still until the host has answered.
const lookEvery = 3

// driver is what the host says of GPUs that are on the bus.
type driver struct {
	host *gpuhelper.Helper
	gpus []gpu
}

func (d *driver) State() (gpuhelper.State, error) {
	s, err := d.host.State()
	if err != nil {
		return s, err
	}
	for _, g := range d.gpus {
		s.Devices = append(s.Devices, gpuhelper.Device{Kind: evidence.KindGPU, Address: g.address})
	}
	return s, nil
}

func (d *driver) Evidence(nonce [32]byte) ([]evidence.Device, error) { return d.host.Evidence(nonce) }

func (d *driver) SetReady(ready bool) error { return d.host.SetReady(ready) }

// gpu is a device with NVIDIA's number, and its configuration space.
type gpu struct {
	address string
	config  *os.File
}

// gpus are those on the bus, by their addresses.
func gpus() (found []gpu, err error) {
	files, err := filepath.Glob("/sys/bus/pci/devices/*/vendor") // sorted
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if vendor, err := os.ReadFile(file); err != nil || string(vendor) != "0x10de\n" {
			continue
		}
		dir := filepath.Dir(file)
		config, err := os.Open(filepath.Join(dir, "config"))
		if err != nil {
			return nil, err
		}
		found = append(found, gpu{filepath.Base(dir), config})
	}
	return found, nil
}

// well reports whether each device answers still: one that is gone reads as all ones.
func well(all []gpu) bool {
	for _, g := range all {
		number := make([]byte, 2) // the whole space takes a thousand words with the host
		if _, err := g.config.ReadAt(number, 0); err != nil || !bytes.Equal(number, []byte{0xde, 0x10}) {
			log.Printf("%s reads %x (error %v)", g.address, number, err)
			return false
		}
	}
	return len(all) > 0
}
