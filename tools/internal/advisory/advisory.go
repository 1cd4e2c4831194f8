// Package advisory looks up what a release holds in databases of vulnerabilities that an auditor has downloaded: the JSON of Debian's
// security tracker for Debian packages, and OSV entries as the Go vulnerability database publishes them for Go modules.
//
// A database is somebody else's word, read strictly: bounded, without unknown members where they could change a meaning, and refused
// where it can't be what it should be. Whether it is new enough is for the caller, who is told its date.
//
// The common path: ReadTracker with the source packages of a release; OpenGo, then Affecting for each module, and NamesOf a program for
// whether the functions concerned are linked into it.
//
// What this package does not promise: that a vulnerability is in a database, or that one which is there can be reached.
package advisory

// Finding is a vulnerability in a version that a release holds.
type Finding struct {
	ID      string
	Aliases []string // other names of the same
	Fixed   string   // the first version without it; "" is none yet
	Note    string   // what the database says of it
}
