package nvidia

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The fields of opaque data, by what NVIDIA's attestation SDK calls them (OPAQUE_FIELD_ID_…). Those of a switch share the numbers 22 to
// 26 with other fields of a GPU.
const (
	fieldDriver        = 3  // text
	fieldVBIOS         = 6  // GPU: 8 bytes; switch: text
	fieldNVDEC0        = 11 // whether the decoder 0 is there
	fieldChipSKU       = 15 // text
	fieldProject       = 17 // text
	fieldProjectSKU    = 18 // text
	fieldFWID          = 20 // SHA-384
	fieldProtectedPCIe = 21
	fieldPDI           = 22 // GPU: of the switch behind each link; switch: its own
	fieldGPUPDIs       = 26 // switch: 8 GPUs, and which of them is behind each port
	fieldOpaqueVersion = 34
	fieldChip          = 35 // text
	fieldFeature       = 36
	maxField           = 36
)

// What the status fields say.
const (
	statusOn  = 0xaa
	statusOff = 0x55
)

const (
	pdiSize      = 8
	switchGPUs   = 8  // places in a switch's list
	switchPorts  = 64 // each with the place of the GPU behind it
	noGPU        = 0xff
	fwidSize     = 48
	maxTextBytes = 64
	featureSPT   = 0 // so have NVIDIA's Python verifiers it, and boards of several GPUs say 1; its C++ SDK has the two the other way round
	featureMPT   = 1
	featurePPCIe = 2
	featureSince = 1 // opaque data version
)

// Mode is the confidential mode that a GPU runs in.
type Mode string

// The modes.
const (
	ModeSPT   Mode = "spt"   // single GPU passed through
	ModeMPT   Mode = "mpt"   // several GPUs passed through, NVLink encrypted
	ModePPCIe Mode = "ppcie" // protected PCIe: all GPUs and NVSwitches of a board in one guest
)

// PDI names a device for its links: bytes in the order in which a switch writes its own.
type PDI [pdiSize]byte

func (p PDI) String() string { return fmt.Sprintf("%X", p[:]) }

// Claims is what a report's opaque data say.
type Claims struct {
	Driver        string // of a GPU
	VBIOS         string // of a GPU its VBIOS, of a switch its BIOS; as in a RIM's name, such as 96.00.9F.00.01
	Chip          string // from newer drivers
	Project       string
	ProjectSKU    string
	ChipSKU       string
	FWID          []byte // SHA-384 of the firmware that holds the signing key; nil where the report does not say
	Mode          Mode   // of a GPU
	ProtectedPCIe bool
	Decoder       bool // measurement 36 is of the decoder 0, which not every GPU has

	SwitchPDIs []PDI // of a GPU: of the switch behind each link that is in use
	OwnPDI     PDI   // of a switch
	GPUPDIs    []PDI // of a switch: of the GPUs at its ports
}

// Claims reads the opaque data of a GPU's report. An unknown field, which may say what nothing here looks at, is refused.
func (r *Report) Claims() (Claims, error) {
	fields, err := r.fields()
	if err != nil {
		return Claims{}, err
	}
	var c Claims
	var errs []error
	text := func(id uint16, needed bool) string { return fields.text(id, needed, &errs) }
	c.Driver, c.Chip = text(fieldDriver, true), text(fieldChip, false)
	c.Project, c.ProjectSKU, c.ChipSKU = text(fieldProject, true), text(fieldProjectSKU, true), text(fieldChipSKU, true)
	if v := fields[fieldVBIOS]; len(v) == 8 && v[5] == 0 && v[6] == 0 && v[7] == 0 {
		c.VBIOS = fmt.Sprintf("%02X.%02X.%02X.%02X.%02X", v[3], v[2], v[1], v[0], v[4])
	} else {
		errs = append(errs, fmt.Errorf("VBIOS version is %x, want 5 bytes and 3 zeros", v))
	}
	errs = append(errs, c.firmware(fields), c.status(fields), c.mode(fields), c.links(fields))
	return c, errors.Join(errs...)
}

// SwitchClaims reads the opaque data of a switch's report.
func (r *Report) SwitchClaims() (Claims, error) {
	fields, err := r.fields()
	if err != nil {
		return Claims{}, err
	}
	var c Claims
	var errs []error
	c.VBIOS = strings.ToUpper(fields.text(fieldVBIOS, true, &errs))
	if v := fields[fieldPDI]; len(v) == pdiSize {
		c.OwnPDI = PDI(v)
	} else {
		errs = append(errs, fmt.Errorf("the switch's PDI has %d bytes, want %d", len(v), pdiSize))
	}
	errs = append(errs, c.firmware(fields))
	errs = append(errs, c.ports(fields[fieldGPUPDIs]))
	return c, errors.Join(errs...)
}

type fieldMap map[uint16][]byte

func (r *Report) fields() (fieldMap, error) {
	fields := fieldMap{}
	for _, f := range r.Opaque {
		if f.ID == 0 || f.ID > maxField {
			return nil, fmt.Errorf("opaque field %d is unknown: %d is the newest that this build knows", f.ID, maxField)
		}
		fields[f.ID] = f.Value
	}
	return fields, nil
}

// text reads a text that ends in zeros.
func (f fieldMap) text(id uint16, needed bool, errs *[]error) string {
	v := bytes.TrimRight(f[id], "\x00")
	if len(v) == 0 && needed || len(v) > maxTextBytes || slices.ContainsFunc(v, func(b byte) bool {
		return (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && b != '.' && b != '-' && b != '_'
	}) {
		*errs = append(*errs, fmt.Errorf("opaque field %d is %q, want a text of letters, digits, dots and dashes", id, f[id]))
		return ""
	}
	return string(v)
}

// number reads a number in little endian, of one or two bytes.
func (f fieldMap) number(id uint16) (n uint64, there bool, err error) {
	v, there := f[id]
	switch {
	case !there:
		return 0, false, nil
	case len(v) == 1:
		return uint64(v[0]), true, nil
	case len(v) == 2:
		return uint64(binary.LittleEndian.Uint16(v)), true, nil
	}
	return 0, true, fmt.Errorf("opaque field %d has %d bytes, want 1 or 2", id, len(v))
}

// on reads a status.
func (f fieldMap) on(id uint16) (on, there bool, err error) {
	n, there, err := f.number(id)
	if err != nil || !there {
		return false, there, err
	}
	if n != statusOn && n != statusOff {
		return false, true, fmt.Errorf("opaque field %d is %#x, want %#x or %#x", id, n, statusOn, statusOff)
	}
	return n == statusOn, true, nil
}

func (c *Claims) firmware(fields fieldMap) error {
	c.FWID = fields[fieldFWID]
	if c.FWID != nil && len(c.FWID) != fwidSize {
		return fmt.Errorf("FWID has %d bytes, want %d", len(c.FWID), fwidSize)
	}
	return nil
}

func (c *Claims) status(fields fieldMap) error {
	var there bool
	var errs [2]error
	if c.Decoder, there, errs[0] = fields.on(fieldNVDEC0); errs[0] == nil && !there {
		errs[0] = fmt.Errorf("opaque field %d, of the decoder, is not there", fieldNVDEC0)
	}
	c.ProtectedPCIe, _, errs[1] = fields.on(fieldProtectedPCIe)
	return errors.Join(errs[:]...)
}

// mode reads the feature flag. Drivers before it knew one GPU passed through, and protected PCIe, which has a field of its own.
func (c *Claims) mode(fields fieldMap) error {
	version, _, err := fields.number(fieldOpaqueVersion)
	if err != nil {
		return err
	}
	flag, there, err := fields.number(fieldFeature)
	switch {
	case err != nil:
		return err
	case version > featureSince:
		return fmt.Errorf("opaque data are of version %d: %d is the newest that this build knows", version, featureSince)
	case there != (version >= featureSince):
		return fmt.Errorf("feature flag is there: %t, in opaque data of version %d", there, version)
	case !there && c.ProtectedPCIe, there && flag == featurePPCIe:
		c.Mode = ModePPCIe
	case !there, flag == featureSPT:
		c.Mode = ModeSPT
	case flag == featureMPT:
		c.Mode = ModeMPT
	default:
		return fmt.Errorf("feature flag is %d, want %d, %d or %d", flag, featureSPT, featureMPT, featurePPCIe)
	}
	return nil
}

// links reads which switches a GPU's links lead to. The GPU writes their names backwards.
func (c *Claims) links(fields fieldMap) error {
	v := fields[fieldPDI]
	if len(v)%pdiSize != 0 {
		return fmt.Errorf("the PDIs of switches have %d bytes, want a multiple of %d", len(v), pdiSize)
	}
	for ; len(v) > 0; v = v[pdiSize:] {
		pdi := PDI(v)
		slices.Reverse(pdi[:])
		if pdi != (PDI{}) && !slices.Contains(c.SwitchPDIs, pdi) {
			c.SwitchPDIs = append(c.SwitchPDIs, pdi)
		}
	}
	return nil
}

// ports reads which GPUs a switch's ports lead to.
func (c *Claims) ports(list []byte) error {
	if want := switchGPUs*pdiSize + switchPorts; len(list) != want {
		return fmt.Errorf("the switch's list of GPUs has %d bytes, want %d", len(list), want)
	}
	for i, at := range list[switchGPUs*pdiSize:] {
		if at == noGPU {
			continue
		}
		if at >= switchGPUs {
			return fmt.Errorf("port %d leads to the GPU %d, want one below %d", i, at, switchGPUs)
		}
		if pdi := PDI(list[int(at)*pdiSize:]); !slices.Contains(c.GPUPDIs, pdi) {
			c.GPUPDIs = append(c.GPUPDIs, pdi)
		}
	}
	return nil
}
