// Package varstore reads the variable stores of EDK2's firmware (OVMF_VARS.fd), whose Secure Boot variables firmware measures.
//
//	variables, err := varstore.Parse(file)
//	db := varstore.Find(variables, "db")
//
// Source: EDK2, MdeModulePkg/Include/Guid/VariableFormat.h (authenticated variables) and UEFI PI 1.8, volume 3, section 3.2.1 (the
// firmware volume around them); UEFI 2.10, section 32.4.1 (signature lists).
package varstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"

	"chrysalis/measure/tdvf"
)

var (
	// Image and Global are the namespaces of db and dbx, and of the rest of Secure Boot: UEFI 2.10, section 32.3.
	Image  = tdvf.ParseGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
	Global = tdvf.ParseGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")

	authenticated = tdvf.ParseGUID("aaf32c78-947b-439a-a180-2e144ec37792")
	certificate   = tdvf.ParseGUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072") // EFI_CERT_X509_GUID
)

const (
	maxBytes     = 16 << 20
	maxVariables = 4096

	volumeHead  = 0x38 // of a firmware volume, up to its block map
	storeHead   = 28   // GUID, size, format, state, reserved
	entryHead   = 60   // of a variable
	entryStart  = 0x55aa
	stateAdded  = 0x3f // written whole, and not deleted
	inDeletion  = 0xfe // AND-ed to it while another replaces it
	storeFormat = 0x5a
	storeState  = 0xfe
)

// Variable is one that the store holds now.
type Variable struct {
	GUID       [16]byte
	Name       string
	Attributes uint32
	Data       []byte
}

// Parse returns the variables of a store, in its order: a firmware volume with an authenticated variable store in front, or that store
// alone. Deleted ones are passed over. What the store says that it can't hold refuses it.
func Parse(file []byte) ([]Variable, error) {
	variables, err := parse(file)
	if err != nil {
		return nil, fmt.Errorf("parsing variable store: %w", err)
	}
	return variables, nil
}

func parse(file []byte) ([]Variable, error) {
	le := binary.LittleEndian
	if len(file) > maxBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(file), maxBytes)
	}
	b := file
	if len(b) >= volumeHead && string(b[0x28:0x2c]) == "_FVH" {
		head := int(le.Uint16(b[0x30:]))
		if head < volumeHead || head > len(b) {
			return nil, fmt.Errorf("volume header has %d bytes of %d", head, len(b))
		}
		b = b[head:]
	}
	if len(b) < storeHead || [16]byte(b) != authenticated {
		return nil, errors.New("no authenticated variable store of EDK2: is it firmware code, or the variables of another maker?")
	}
	size := uint64(le.Uint32(b[16:]))
	if size < storeHead || size > uint64(len(b)) || b[20] != storeFormat || b[21] != storeState {
		return nil, fmt.Errorf("store of %d bytes in %d, of format %#x and state %#x, want %#x and %#x", size, len(b), b[20], b[21], storeFormat, storeState)
	}
	var all []Variable
	for rest := b[storeHead:size]; len(rest) >= entryHead && le.Uint16(rest) == entryStart; {
		if len(all) == maxVariables {
			return nil, fmt.Errorf("more than %d variables", maxVariables)
		}
		state, name, data := rest[2], uint64(le.Uint32(rest[36:])), uint64(le.Uint32(rest[40:]))
		if name%2 != 0 || name+data > uint64(len(rest)-entryHead) {
			return nil, fmt.Errorf("variable with %d bytes of name and %d of data, %d left", name, data, len(rest)-entryHead)
		}
		v := Variable{GUID: [16]byte(rest[44:]), Attributes: le.Uint32(rest[4:]), Data: rest[entryHead+name:][:data:data]}
		text, err := utf16Text(rest[entryHead:][:name])
		if err != nil {
			return nil, err
		}
		v.Name = text
		// One that is being replaced counts until its successor is there, which stands behind it.
		if state == stateAdded || state == stateAdded&inDeletion {
			all = slices.DeleteFunc(all, func(old Variable) bool { return old.GUID == v.GUID && old.Name == v.Name })
			all = append(all, v)
		}
		used := (entryHead + name + data + 3) &^ 3
		rest = rest[min(used, uint64(len(rest))):]
	}
	return all, nil
}

func utf16Text(b []byte) (string, error) {
	if len(b) < 2 || b[len(b)-1] != 0 || b[len(b)-2] != 0 {
		return "", fmt.Errorf("name of a variable is %x, want UTF-16 with a NUL", b)
	}
	var units []uint16
	for i := 0; i < len(b)-2; i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	return string(utf16.Decode(units)), nil
}

// Find returns the contents of a variable, or nil.
func Find(variables []Variable, guid [16]byte, name string) []byte {
	for _, v := range variables {
		if v.GUID == guid && v.Name == name {
			return v.Data
		}
	}
	return nil
}

// Signature returns the EFI_SIGNATURE_DATA of a certificate (DER) in a list such as db: whose it is, and the certificate. It is what
// firmware measures when the certificate verifies an image.
func Signature(lists, der []byte) ([]byte, error) {
	le := binary.LittleEndian
	for rest := lists; len(rest) > 0; {
		const head = 28
		if len(rest) < head {
			return nil, fmt.Errorf("signature list has %d bytes, want at least %d", len(rest), head)
		}
		size, header, each := uint64(le.Uint32(rest[16:])), uint64(le.Uint32(rest[20:])), uint64(le.Uint32(rest[24:]))
		if size < head || size > uint64(len(rest)) || header > size-head || each <= 16 || (size-head-header)%each != 0 {
			return nil, fmt.Errorf("signature list of %d bytes with entries of %d, %d left", size, each, len(rest))
		}
		for entries := rest[head+header : size]; len(entries) > 0; entries = entries[each:] {
			if [16]byte(rest) == certificate && string(entries[16:each]) == string(der) {
				return entries[:each:each], nil
			}
		}
		rest = rest[size:]
	}
	return nil, errors.New("no such certificate in the list")
}
