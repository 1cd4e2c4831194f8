package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/tdx"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/tdvf"
)

// td is a TD and the TDX module below it.
type td struct {
	mu      sync.Mutex
	machine *attesttest.TDX
	macKey  [32]byte // of the processor: its own enclaves alone check reports
	// hob is the list of memory with the block that ends it, and hobAt where the firmware looks for it.
	hob   []byte
	hobAt uint64
}

// attributeDebug is bit 0 of TDATTRIBUTES: the host may read and change the TD.
const attributeDebug = 1

// newTD returns a TD of a processor that was made now and is vouched for during a day, by a root that was made now as well where none is
// given. Its registers are zero.
func newTD(now time.Time, configID [48]byte, debug bool, under *root) (*td, error) {
	t := &td{machine: attesttest.NewTDX(now, 5, true)}
	if r := t.machine.Root; under != nil {
		r.Key, r.Template, r.Made = under.key, under.certificate, under.certificate.Raw
	}
	b := &t.machine.Body
	clear(b.RTMR[:])
	b.MRCONFIGID, b.MROWNER, b.MROWNERCONFIG = configID, [48]byte{}, [48]byte{}
	if debug {
		b.TDAttributes[0] |= attributeDebug
	}
	_, err := rand.Read(t.macKey[:])
	return t, err
}

// load measures what QEMU puts into the TD before it starts.
func (t *td) load(mrtd [48]byte, sections []tdvf.Section, hob []byte) error {
	t.machine.Body.MRTD = mrtd
	for _, s := range sections {
		if s.Type == tdvf.SectionHOB {
			t.hobAt = s.Address
			// UEFI PI 1.8, volume 3, section 5.10: the block that ends a list.
			t.hob = append(hob, 0xff, 0xff, 8, 0, 0, 0, 0, 0)
			return nil
		}
	}
	return errors.New("firmware has no place for the list of memory")
}

// publish returns the root's certificate and the collateral that Intel's service would hand out for this processor.
func (t *td) publish() (root, collateral []byte, err error) {
	e := t.machine.Build()
	collateral, err = e.Collateral.Encode()
	return e.Root.Raw, collateral, err
}

// launched answers what the plugin asks first: attributes, the address of the list of memory, the list.
func (t *td) launched() []byte {
	return append(binary.LittleEndian.AppendUint64(t.machine.Body.TDAttributes[:], t.hobAt), t.hob...)
}

func (t *td) extend(rtmr uint8, digest [48]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if int(rtmr) >= len(t.machine.Body.RTMR) {
		return fmt.Errorf("RTMR%d", rtmr)
	}
	t.machine.Body.RTMR[rtmr] = eventlog.Extend384(t.machine.Body.RTMR[rtmr], digest)
	return nil
}

// A report: Intel TDX Module ABI, TDREPORT_STRUCT. Its first part has hashes of the two others and a MAC over all of itself.
const (
	reportBytes = 1024
	macBytes    = 224 // under the MAC, which follows
	dataAt      = 128
	tcbAt       = 256
	tcbBytes    = 239
	infoAt      = 512
)

// parts returns the fields of the second and third part of a report, in order, as they stand in a quote's body.
func parts(b *tdx.Body) (tcb, info [][]byte) {
	return [][]byte{b.TEETCBSVN[:], b.MRSEAM[:], b.MRSIGNERSEAM[:], b.SEAMAttributes[:], b.TEETCBSVN2[:]},
		[][]byte{b.TDAttributes[:], b.XFAM[:], b.MRTD[:], b.MRCONFIGID[:], b.MROWNER[:], b.MROWNERCONFIG[:],
			b.RTMR[0][:], b.RTMR[1][:], b.RTMR[2][:], b.RTMR[3][:], b.MRSERVICETD[:]}
}

// report reports on the TD as it is now.
func (t *td) report(data [64]byte) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := make([]byte, reportBytes)
	r[0], r[2] = 0x81, 1 // of a TD; version 1
	copy(r[16:], t.machine.Platform.CPUSVN[:])
	copy(r[dataAt:], data[:])
	tcb, info := parts(&t.machine.Body)
	binary.LittleEndian.PutUint64(r[tcbAt:], 0x301ff) // which fields hold
	at := tcbAt + 8
	for _, f := range tcb {
		at += copy(r[at:], f)
	}
	at = infoAt
	for _, f := range info {
		at += copy(r[at:], f)
	}
	sum := sha512.Sum384(r[tcbAt : tcbAt+tcbBytes])
	copy(r[32:], sum[:])
	sum = sha512.Sum384(r[infoAt:])
	copy(r[80:], sum[:])
	copy(r[macBytes:], t.mac(r))
	return r
}

func (t *td) mac(report []byte) []byte {
	mac := hmac.New(sha256.New, t.macKey[:])
	mac.Write(report[:macBytes])
	return mac.Sum(nil)
}

// quote makes a quote of a report, as the quoting enclave does: of what the report says, once its MAC and its hashes hold. change
// may make another TD's quote of it.
func (t *td) quote(report []byte, change func(*tdx.Body)) ([]byte, error) {
	tcbSum, infoSum := sha512.Sum384(report[tcbAt:tcbAt+tcbBytes]), sha512.Sum384(report[infoAt:])
	if !hmac.Equal(t.mac(report), report[macBytes:tcbAt]) || [48]byte(report[32:]) != tcbSum || [48]byte(report[80:]) != infoSum {
		return nil, errors.New("the report is not of this processor")
	}
	t.mu.Lock()
	quoted := *t.machine
	t.mu.Unlock()
	tcb, info := parts(&quoted.Body)
	at := tcbAt + 8
	for _, f := range tcb {
		at += copy(f, report[at:])
	}
	at = infoAt
	for _, f := range info {
		at += copy(f, report[at:])
	}
	quoted.Body.ReportData = [64]byte(report[dataAt:])
	if change != nil {
		change(&quoted.Body)
	}
	return quoted.Quote(), nil
}
