package config

import (
	"net/netip"
	"reflect"
	"testing"
)

// lent is the example under a custodian.
func lent() Measured {
	m := example()
	m.Identity.Sealing, m.Identity.Custody = SealCustodian, Custody{LeaseSeconds: 60, CollateralHours: 168}
	return m
}

// TestCustody: what custodian and borrower judge each other by stands in an identity under a custodian, whole, and in no other; and a
// custodian's service part has nothing to compute.
func TestCustody(t *testing.T) {
	custodian := Service{Custodian: true, GPU: GPUNone}
	for _, tt := range []struct {
		name, refused string
		change        func(*Measured)
	}{
		{"a guest that borrows", "", func(*Measured) {}},
		{"the custodian", "", func(m *Measured) { m.Service = custodian }},
		{"everything given", "", func(m *Measured) {
			m.Identity.Custody.Roots, m.Identity.Custody.MinTCBEvaluation = [][]byte{{0x30, 1}, {0x30, 2}}, 17
			m.Identity.Custody.MinTCB = []PatchLevels{{Product: "Turin", FMC: 1, SNP: 22}, {Product: "Milan", SNP: 22}}
		}},
		{"handover to the same registers", "", func(m *Measured) { m.Identity.Handover = HandoverSame }},
		{"no handover", "handover", func(m *Measured) { m.Identity.Handover = HandoverNone }},
		{"no custody", "lease_seconds is 0", func(m *Measured) { m.Identity.Custody = Custody{} }},
		{"a short lease", "lease_seconds is 4", func(m *Measured) { m.Identity.Custody.LeaseSeconds = 4 }},
		{"a lease of days", "lease_seconds is 86401", func(m *Measured) { m.Identity.Custody.LeaseSeconds = 86401 }},
		{"no age", "collateral_hours is 0", func(m *Measured) { m.Identity.Custody.CollateralHours = 0 }},
		{"any age", "collateral_hours is 9601", func(m *Measured) { m.Identity.Custody.CollateralHours = 9601 }},
		{"an empty list of roots", "0 roots", func(m *Measured) { m.Identity.Custody.Roots = [][]byte{} }},
		{"too many roots", "9 roots", func(m *Measured) { m.Identity.Custody.Roots = make([][]byte, 9) }},
		{"a root of nothing", "root 1 has 0 bytes", func(m *Measured) { m.Identity.Custody.Roots = [][]byte{{1}, {}} }},
		{"a root that is too long", "root 0 has 4097 bytes", func(m *Measured) { m.Identity.Custody.Roots = [][]byte{make([]byte, 4097)} }},
		{"no patch levels", "min_tcb is empty", func(m *Measured) { m.Identity.Custody.MinTCB = []PatchLevels{} }},
		{"an unknown processor", `product "Rome"`, func(m *Measured) { m.Identity.Custody.MinTCB = []PatchLevels{{Product: "Rome"}} }},
		{"a processor twice", `product "Milan"`, func(m *Measured) {
			m.Identity.Custody.MinTCB = []PatchLevels{{Product: "Milan"}, {Product: "Milan", SNP: 1}}
		}},
		{"custody without a custodian", "custody: it is given", func(m *Measured) { m.Identity.Sealing = SealTPM }},
		{"a custodian under another sealing", "service: custodian", func(m *Measured) { *m = example(); m.Service = custodian }},
		{"a custodian with an engine", "with more", func(m *Measured) { m.Service.Custodian = true }},
		{"a custodian with a price", "with more", func(m *Measured) { p := m.Service.Price; m.Service = custodian; m.Service.Price = p }},
		{"a custodian without a GPU rule", "with more", func(m *Measured) { m.Service = Service{Custodian: true} }},
	} {
		m := lent()
		tt.change(&m)
		goesRound(t, tt.name, m, tt.refused)
	}
	b, err := Measured{Identity: lent().Identity, Service: custodian}.Encode()
	if _, service, _ := Split(b); err != nil || string(service) != `{"custodian":true,"gpu":"none"}` {
		t.Errorf("a custodian's service part: got %s and error %v", service, err)
	}
}

// TestHostCustodian: a way to a custodian is an address that can be dialled.
func TestHostCustodian(t *testing.T) {
	host := Host{Network: HostNetwork{Mode: ModeDHCP4}, Port: 8443}
	for text, good := range map[string]bool{"10.0.2.2:8443": true, "10.0.2.2:0": false, "[::1]:8443": false} {
		host.Custodian = HostCustodian{Address: netip.MustParseAddrPort(text), List: []byte("{}")}
		b, err := host.Encode()
		if good != (err == nil) {
			t.Errorf("%s: got error %v, want one: %t", text, err, !good)
		}
		if got, err := DecodeHost(b); good && (err != nil || !reflect.DeepEqual(got, host)) {
			t.Errorf("%s: got %+v and error %v, want %+v", text, got, err, host)
		}
	}
	host.Custodian = HostCustodian{List: []byte("{}")}
	if _, err := host.Encode(); err == nil {
		t.Error("a list and no address: got no error, want one")
	}
	host.Custodian = HostCustodian{Address: netip.MustParseAddrPort("10.0.2.2:1"), List: make([]byte, maxListBytes+1)}
	if _, err := host.Encode(); err == nil {
		t.Error("a list that is too long: got no error, want one")
	}
}
