package main

import "testing"

func TestGroupOf(t *testing.T) {
	for check, want := range map[string]string{
		"nonce": "session", "statement-gpu": "session", "sev-snp.report-data": "session", "quote-signature": "hardware", "sev-snp.chip": "hardware",
		"confidentiality": "hardware", "tdx.tcb-status": "hardware", "a name of tomorrow's": "hardware", "pcr-1": "image", "rtmr-2": "image",
		"sev-snp.measurement": "image", "release-rebuilt": "image", "boot-log-data": "image", "config.service.wipe": "config", "event-model": "config",
		"host-data": "config", "mr-config-id": "config", "config.service.price.payment": "price",
	} {
		if got := groupOf(check); got != want {
			t.Errorf("%s: got %s, want %s", check, got, want)
		}
	}
}
