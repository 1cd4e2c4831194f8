package tdx

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes of the structures in a quote: Intel TDX DCAP Quoting Library API, appendix 3 (quote format version 4 and 5).
const (
	headerBytes   = 48
	body10Bytes   = 584 // TD report of TDX 1.0
	body15Bytes   = 648 // of TDX 1.5: TEE_TCB_SVN_2 and MRSERVICETD follow
	qeReportBytes = 384

	// MaxQuoteBytes bounds a quote with its padding. Guests hand out fixed buffers of 8000 bytes and more.
	MaxQuoteBytes = 64 << 10
)

// What a quote's header must say.
const (
	attestationKeyECDSAP256 = 2
	teeTypeTDX              = 0x81

	body10Type = 2
	body15Type = 3

	certificationPCKChain = 5 // PCK certificate chain in PEM
	certificationQEReport = 6 // QE report, its signature and authentication data, and certification data of type 5
)

// qeVendorIntel is the vendor id of Intel's quoting enclave.
var qeVendorIntel = [16]byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// Body is the TD report in a quote: what the TDX module measured. It is as true as the quote that it comes from.
type Body struct {
	TEETCBSVN      [16]byte // security versions when the TD was made
	MRSEAM         [48]byte // measurement of the TDX module
	MRSIGNERSEAM   [48]byte // its signer: zeros when Intel signed it
	SEAMAttributes [8]byte
	TDAttributes   [8]byte
	XFAM           [8]byte
	MRTD           [48]byte
	MRCONFIGID     [48]byte
	MROWNER        [48]byte
	MROWNERCONFIG  [48]byte
	RTMR           [4][48]byte
	ReportData     [64]byte

	// TDX15 says that the report is of TDX 1.5. Without it the next two are zeros.
	TDX15       bool
	TEETCBSVN2  [16]byte // security versions of the TDX module that runs now
	MRSERVICETD [48]byte // service TDs that are bound to this one
}

// Debug reports whether the TD is under debug, in which case its host reads and writes its memory.
func (b *Body) Debug() bool { return b.TDAttributes[0]&attributeDebug != 0 }

// fields returns the parts of a TDX 1.0 report in their order.
func (b *Body) fields() [][]byte {
	return [][]byte{
		b.TEETCBSVN[:], b.MRSEAM[:], b.MRSIGNERSEAM[:], b.SEAMAttributes[:], b.TDAttributes[:], b.XFAM[:], b.MRTD[:], b.MRCONFIGID[:],
		b.MROWNER[:], b.MROWNERCONFIG[:], b.RTMR[0][:], b.RTMR[1][:], b.RTMR[2][:], b.RTMR[3][:], b.ReportData[:],
	}
}

// QEReport is the report of the quoting enclave: Intel SDM volume 3D, section 38.15.
type QEReport struct {
	MiscSelect [4]byte
	Attributes [16]byte
	MRSIGNER   [32]byte
	ISVProdID  uint16
	ISVSVN     uint16
	ReportData [64]byte
}

func parseQEReport(b [qeReportBytes]byte) QEReport {
	return QEReport{
		MiscSelect: [4]byte(b[16:]), Attributes: [16]byte(b[48:]), MRSIGNER: [32]byte(b[128:]),
		ISVProdID: binary.LittleEndian.Uint16(b[256:]), ISVSVN: binary.LittleEndian.Uint16(b[258:]), ReportData: [64]byte(b[320:]),
	}
}

// Quote is a TDX quote, parsed and not verified.
type Quote struct {
	Version  uint16 // 4 or 5
	Reserved [4]byte
	UserData [20]byte
	Body     Body

	Signature         [64]byte // by the attestation key, over header and body
	AttestationKey    [64]byte // P-256 point, X and Y
	QEReport          [qeReportBytes]byte
	QEReportSignature [64]byte // by the PCK, over the QE report
	QEAuthData        []byte
	PCKChain          []byte // PEM: PCK, its CA, root; nil where Certification is of another type

	// Certification is certification data that is no chain. The PCK's chain then has to come beside the quote.
	Certification Certification
}

// Certification is certification data of another type than the chain's: what names the PCK, or a part of its chain.
type Certification struct {
	Type uint16
	Data []byte
}

// certificationBytes are the lengths of those that have one.
var certificationBytes = map[uint16]int{1: 36, 2: 276, 3: 404}

// certifications are the types that name a PCK without its chain: Intel TDX DCAP Quoting Library API, appendix 3.9.
var certifications = map[uint16]string{
	1: "the PPID in plain text", 2: "the PPID, encrypted by RSA-2048", 3: "the PPID, encrypted by RSA-3072", 4: "the PCK's certificate alone",
	7: "the platform's manifest",
}

// Parse reads a quote of version 4, or of version 5 with a TDX 1.0 or 1.5 report. Zeros may follow it, as guests hand out
// buffers of fixed size; anything else may not. Encode writes it again byte for byte, padding apart.
func Parse(b []byte) (*Quote, error) {
	if len(b) > MaxQuoteBytes {
		return nil, fmt.Errorf("parsing quote: %d bytes, want at most %d", len(b), MaxQuoteBytes)
	}
	r := &reader{rest: b}
	q := new(Quote)
	q.parseHeader(r)
	q.parseBody(r)
	signed := r.sized("signature data")
	if r.err == nil && len(bytes.Trim(r.rest, "\x00")) != 0 {
		r.err = fmt.Errorf("%d bytes after the quote, want none but zeros", len(r.rest))
	}
	if r.err != nil {
		return nil, fmt.Errorf("parsing quote: %w", r.err)
	}
	if err := q.parseSignatureData(signed); err != nil {
		return nil, fmt.Errorf("parsing quote: signature data: %w", err)
	}
	return q, nil
}

func (q *Quote) parseHeader(r *reader) {
	header := r.take("header", headerBytes)
	if r.err != nil {
		return
	}
	q.Version = binary.LittleEndian.Uint16(header)
	key, tee := binary.LittleEndian.Uint16(header[2:]), binary.LittleEndian.Uint32(header[4:])
	copy(q.Reserved[:], header[8:])
	vendor := [16]byte(header[12:])
	copy(q.UserData[:], header[28:])
	switch {
	case q.Version != 4 && q.Version != 5:
		newer := ""
		if q.Version > 5 {
			newer = ", which is newer than this build knows"
		}
		r.err = fmt.Errorf("version is %d%s, want 4 or 5", q.Version, newer)
	case key != attestationKeyECDSAP256:
		r.err = fmt.Errorf("attestation key is of type %d, want %d", key, attestationKeyECDSAP256)
	case tee != teeTypeTDX:
		r.err = fmt.Errorf("TEE is of type %#x, want %#x", tee, teeTypeTDX)
	case vendor != qeVendorIntel:
		r.err = fmt.Errorf("quoting enclave is of vendor %x, want %x", vendor, qeVendorIntel)
	}
}

func (q *Quote) parseBody(r *reader) {
	size := body10Bytes
	if q.Version == 5 {
		head := r.take("body's type and size", 6)
		if r.err != nil {
			return
		}
		typ, announced := binary.LittleEndian.Uint16(head), binary.LittleEndian.Uint32(head[2:])
		switch typ {
		case body10Type:
		case body15Type:
			size, q.Body.TDX15 = body15Bytes, true
		default:
			newer := ""
			if typ > body15Type {
				newer = ", which is newer than this build knows"
			}
			r.err = fmt.Errorf("body is of type %d%s, want %d or %d", typ, newer, body10Type, body15Type)
			return
		}
		if int64(announced) != int64(size) {
			r.err = fmt.Errorf("body of type %d has %d bytes, want %d", typ, announced, size)
			return
		}
	}
	body := r.take("body", size)
	if r.err != nil {
		return
	}
	for _, field := range q.Body.fields() {
		body = body[copy(field, body):]
	}
	if q.Body.TDX15 {
		copy(q.Body.MRSERVICETD[:], body[copy(q.Body.TEETCBSVN2[:], body):])
	}
}

func (q *Quote) parseSignatureData(b []byte) error {
	r := &reader{rest: b}
	copy(q.Signature[:], r.take("signature", 64))
	copy(q.AttestationKey[:], r.take("attestation key", 64))
	certification := r.typed("certification data", certificationQEReport)
	if err := r.end(); err != nil {
		return err
	}
	r = &reader{rest: certification}
	copy(q.QEReport[:], r.take("QE report", qeReportBytes))
	copy(q.QEReportSignature[:], r.take("QE report's signature", 64))
	if size := r.take("size of QE authentication data", 2); r.err == nil {
		q.QEAuthData = r.take("QE authentication data", int(binary.LittleEndian.Uint16(size)))
	}
	head := r.take("type of QE certification data", 2)
	if r.err != nil {
		return r.err
	}
	typ := binary.LittleEndian.Uint16(head)
	data := r.sized("QE certification data")
	switch {
	case typ == certificationPCKChain:
		q.PCKChain = data
	case certifications[typ] != "":
		if want := certificationBytes[typ]; r.err == nil && want != 0 && len(data) != want {
			r.err = fmt.Errorf("QE certification data of type %d has %d bytes, want %d", typ, len(data), want)
		}
		q.Certification = Certification{typ, data}
	case r.err == nil:
		r.err = fmt.Errorf("QE certification data is of type %d, want %d, or one of 1 to 4 and 7 with the chain beside the quote", typ, certificationPCKChain)
	}
	return r.end()
}

// signedBytes returns what the attestation key signs: header and body.
func (q *Quote) signedBytes() []byte {
	b := binary.LittleEndian.AppendUint16(nil, q.Version)
	b = binary.LittleEndian.AppendUint16(b, attestationKeyECDSAP256)
	b = binary.LittleEndian.AppendUint32(b, teeTypeTDX)
	b = append(b, q.Reserved[:]...)
	b = append(b, qeVendorIntel[:]...)
	b = append(b, q.UserData[:]...)
	if q.Version == 5 {
		typ, size := uint16(body10Type), uint32(body10Bytes)
		if q.Body.TDX15 {
			typ, size = body15Type, body15Bytes
		}
		b = binary.LittleEndian.AppendUint16(b, typ)
		b = binary.LittleEndian.AppendUint32(b, size)
	}
	for _, field := range q.Body.fields() {
		b = append(b, field...)
	}
	if q.Body.TDX15 {
		b = append(b, q.Body.TEETCBSVN2[:]...)
		b = append(b, q.Body.MRSERVICETD[:]...)
	}
	return b
}

// SignedBytes returns a copy of what the attestation key signs: header and body.
func (q *Quote) SignedBytes() []byte { return q.signedBytes() }

// Encode returns the quote without padding.
func (q *Quote) Encode() []byte {
	certification := append(bytes.Clone(q.QEReport[:]), q.QEReportSignature[:]...)
	certification = binary.LittleEndian.AppendUint16(certification, uint16(len(q.QEAuthData)))
	certification = append(certification, q.QEAuthData...)
	if q.Certification.Type != 0 {
		certification = appendTyped(certification, q.Certification.Type, q.Certification.Data)
	} else {
		certification = appendTyped(certification, certificationPCKChain, q.PCKChain)
	}
	signed := append(bytes.Clone(q.Signature[:]), q.AttestationKey[:]...)
	signed = appendTyped(signed, certificationQEReport, certification)
	b := q.signedBytes()
	b = binary.LittleEndian.AppendUint32(b, uint32(len(signed)))
	return append(b, signed...)
}

func appendTyped(b []byte, typ uint16, data []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// reader cuts fields off the front. After its first error it returns nil.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) take(what string, n int) []byte {
	if r.err == nil && n > len(r.rest) {
		r.err = fmt.Errorf("%s is %d bytes, want %d", what, len(r.rest), n)
	}
	if r.err != nil {
		return nil
	}
	field := r.rest[:n:n]
	r.rest = r.rest[n:]
	return field
}

// sized takes a field that its length in four bytes precedes.
func (r *reader) sized(what string) []byte {
	size := r.take("size of "+what, 4)
	if r.err != nil {
		return nil
	}
	n := binary.LittleEndian.Uint32(size)
	if uint64(n) > uint64(len(r.rest)) {
		r.err = fmt.Errorf("%s is %d bytes, want %d", what, len(r.rest), n)
		return nil
	}
	return r.take(what, int(n))
}

// typed takes a field that its type in two bytes and its length in four precede.
func (r *reader) typed(what string, want uint16) []byte {
	head := r.take("type of "+what, 2)
	if r.err != nil {
		return nil
	}
	if typ := binary.LittleEndian.Uint16(head); typ != want {
		r.err = fmt.Errorf("%s is of type %d, want %d", what, typ, want)
		return nil
	}
	return r.sized(what)
}

func (r *reader) end() error {
	if r.err == nil && len(r.rest) != 0 {
		r.err = fmt.Errorf("%d bytes left over, want none", len(r.rest))
	}
	return r.err
}
