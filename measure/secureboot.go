package measure

import "encoding/binary"

// secureBootVariables returns the UEFI_VARIABLE_DATA of each Secure Boot variable over an empty variable store; on is what
// the variable SecureBoot holds. TCG PC Client Platform Firmware Profile 1.06, section 3.3.4.8.
func secureBootVariables(on []byte) (all []part) {
	global := [16]byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	image := [16]byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	for _, v := range []struct {
		guid [16]byte
		name string
		data []byte
	}{{global, "SecureBoot", on}, {global, "PK", nil}, {global, "KEK", nil}, {image, "db", nil}, {image, "dbx", nil}} {
		data := binary.LittleEndian.AppendUint64(v.guid[:], uint64(len(v.name)))
		data = binary.LittleEndian.AppendUint64(data, uint64(len(v.data)))
		for _, c := range []byte(v.name) {
			data = append(data, c, 0)
		}
		all = append(all, part{InputSecureBoot, v.name, append(data, v.data...)})
	}
	return all
}
