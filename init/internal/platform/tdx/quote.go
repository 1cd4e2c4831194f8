package tdx

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"chrysalis/init/internal/platform/tsm"
)

// Sizes and offsets of a quote and of the TD report in it: Intel TDX DCAP Quote Generation Library, revision 0.9, appendix A.3,
// and Intel TDX Module ABI, TDREPORT_STRUCT. A quote is judged by whoever gets it; here it is only held against this TD.
const (
	headerBytes  = 48
	bodyBytes    = 584 // of a TDX 1.0 body; a 1.5 body begins with the same
	wrapperBytes = 6   // type and length before the body of a quote of version 5

	// maxQuoteBytes is what evidence carries.
	maxQuoteBytes = 16 << 10

	bodyReportData = 520

	reportBytes      = 1024 // TDREPORT_STRUCT
	reportReportData = 128  // in its REPORTMACSTRUCT
	reportInfo       = 512  // its TDINFO_STRUCT
)

// body is what a quote must say.
type body struct {
	reportData [64]byte
	registers  [6][registerBytes]byte
}

// reportOf reads a TD report that this TD's own module made.
func reportOf(report [reportBytes]byte) (b body) {
	copy(b.reportData[:], report[reportReportData:])
	for i, r := range registersOfBody {
		copy(b.registers[i][:], report[reportInfo+r.info:])
	}
	return b
}

// sameTD refuses a quote that is not of this TD, of now, for this report data. Its signature is not looked at: whoever gets it
// does that, and this is about a host that hands out the wrong quote and would be found out only there.
func sameTD(quote []byte, want body) error {
	if len(quote) < headerBytes+bodyBytes || len(quote) > maxQuoteBytes {
		return fmt.Errorf("%w: the quote has %d bytes, want %d to %d", tsm.ErrForeign, len(quote), headerBytes+bodyBytes, maxQuoteBytes)
	}
	const (
		version4, version5 = 4, 5
		teeTDX             = 0x81
	)
	if tee := binary.LittleEndian.Uint32(quote[4:]); tee != teeTDX {
		return fmt.Errorf("%w: the quote is of TEE type %#x, want %#x", tsm.ErrForeign, tee, teeTDX)
	}
	at := headerBytes
	switch version := binary.LittleEndian.Uint16(quote); version {
	case version4:
	case version5:
		if at += wrapperBytes; len(quote) < at+bodyBytes {
			return fmt.Errorf("%w: the quote has %d bytes, want at least %d", tsm.ErrForeign, len(quote), at+bodyBytes)
		}
	default:
		return fmt.Errorf("%w: the quote has version %d, want 4 or 5", tsm.ErrForeign, version)
	}
	got := quote[at:]
	if !bytes.Equal(got[bodyReportData:bodyReportData+64], want.reportData[:]) {
		return fmt.Errorf("%w: its report data is %x, want %x", tsm.ErrForeign, got[bodyReportData:bodyReportData+64], want.reportData)
	}
	for i, r := range registersOfBody {
		if value := got[r.body : r.body+registerBytes]; !bytes.Equal(value, want.registers[i][:]) {
			return fmt.Errorf("%w: its %s is %x, want %x", tsm.ErrForeign, r.name, value, want.registers[i])
		}
	}
	return nil
}
