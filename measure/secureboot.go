package measure

import (
	"encoding/binary"
	"fmt"

	"chrysalis/measure/register"
	"chrysalis/measure/varstore"
)

// secureBootVariables returns the UEFI_VARIABLE_DATA of each Secure Boot variable over an empty variable store; on is what
// the variable SecureBoot holds. TCG PC Client Platform Firmware Profile 1.06, section 3.3.4.8.
func secureBootVariables(on []byte) (all []part) {
	return SecureBoot{State: on}.parts()
}

// SecureBoot is what decides over PCR 7.
type SecureBoot struct {
	// State is what the variable SecureBoot holds: {1} where the firmware enforces it, {0} where it could, nothing where the build
	// does not know it.
	State     []byte
	Variables []varstore.Variable // of the variable store at launch
	// Verified are the certificates (DER) in db by which the firmware verified images, in the order in which each was used first.
	Verified [][]byte
}

// Enforced returns the state that a build with Secure Boot takes from its store: with a platform key it is on, unless the store
// turns it off (EDK2's SecureBootEnable).
func Enforced(variables []varstore.Variable) []byte {
	for _, v := range variables {
		if v.Name == "SecureBootEnable" && len(v.Data) == 1 && v.Data[0] == 0 {
			return []byte{0}
		}
	}
	if len(varstore.Find(variables, varstore.Global, "PK")) > 0 {
		return []byte{1}
	}
	return []byte{0}
}

// PCR7 returns the register as OVMF and other firmware of EDK2 leave it.
func (s SecureBoot) PCR7() (register.Digest, error) {
	events := append(events256(7, s.parts()...), events256(7, separator)...)
	db := varstore.Find(s.Variables, varstore.Image, "db")
	for i, certificate := range s.Verified {
		signature, err := varstore.Signature(db, certificate)
		if err != nil {
			return register.Digest{}, fmt.Errorf("measuring Secure Boot: certificate %d: %w", i, err)
		}
		events = append(events, events256(7, part{InputSecureBoot, "authority", variableData(varstore.Image, "db", signature)})...)
	}
	return replay256(events, 7)[7], nil
}

func (s SecureBoot) parts() (all []part) {
	for _, v := range []struct {
		guid [16]byte
		name string
	}{{varstore.Global, "SecureBoot"}, {varstore.Global, "PK"}, {varstore.Global, "KEK"}, {varstore.Image, "db"}, {varstore.Image, "dbx"}} {
		data := varstore.Find(s.Variables, v.guid, v.name)
		if v.name == "SecureBoot" {
			data = s.State
		}
		all = append(all, part{InputSecureBoot, v.name, variableData(v.guid, v.name, data)})
	}
	return all
}

// variableData is a UEFI_VARIABLE_DATA: GUID, sizes of name and content, name in UTF-16 without a NUL, content.
func variableData(guid [16]byte, name string, content []byte) []byte {
	data := binary.LittleEndian.AppendUint64(guid[:], uint64(len(name)))
	data = binary.LittleEndian.AppendUint64(data, uint64(len(content)))
	for _, c := range []byte(name) {
		data = append(data, c, 0)
	}
	return append(data, content...)
}
