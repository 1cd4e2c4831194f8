// Package nvidia appraises the attestation reports of NVIDIA's GPUs and NVSwitches in confidential mode: the report that a device
// signed over a nonce, the certificates up to NVIDIA's root, the reference values (RIMs) of its driver and firmware, what responders
// say of the certificates, and how the devices of one machine belong together.
//
//	result, err := nvidia.Verify(evidence, options, time.Now(), nvidia.NVIDIARoots())
//
// Specifications: DMTF DSP0274 1.1 (SPDM), ISO/IEC 19770-2 and W3C XML Signature (RIMs in XML), RFC 9052 and the IETF's CoRIM draft
// (RIMs in CBOR), RFC 6960 (OCSP). What NVIDIA puts into the opaque data of a report is published as the source of its attestation SDK.
//
// It works offline, on any operating system and in a browser. The zero Options accept nothing, and each field that makes them accept
// more says so in its name. Three results are kept apart: no GPU was asked for, none was found, and those that were asked for are verified.
//
// What a Result does not promise: that nobody with physical access has broken the device that signed; that the driver is still the
// measured one after the report was made; and which guest a device is attached to, which the nonce says to whoever chose it.
// No signed field names development mode (devtools): such a device measures other settings, and so its measurements are refused.
package nvidia
