// Package release describes what a release folder is made of, compares two of them, and signs them.
//
// Beside the files that a machine boots, a release folder holds four documents:
//
//	manifest.json    what clients read (package measure); it names every other file but the provenance by SHA-256
//	contents.json    every file of the folder, of the root and of the initrd, with its mode, hash and owner (Contents)
//	sbom.json        the same parts as a CycloneDX bill of materials
//	provenance.json  an in-toto statement with SLSA provenance over all files above; this is what is signed
//
// All four are functions of the release's inputs: they hold no time, no random number and no name of a machine, so whoever
// rebuilds the release gets the same bytes.
package release

// Names of the documents of a release folder.
const (
	ManifestName   = "manifest.json"
	ContentsName   = "contents.json"
	SBOMName       = "sbom.json"
	ProvenanceName = "provenance.json"
)
