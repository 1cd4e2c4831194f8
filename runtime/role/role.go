// Package role is the contract between init and the processes of the service. init starts each role by it, and the role takes
// by it what it was given: its user, its arguments, its descriptors, the words that it may say, the secret's message and the
// stream of quotes. ROLES.md beside this file is the specification.
//
//	argv, err := role.Keeper.Argv(role.Settings{role.Measured: "/run/chrysalis/measured"})   // init
//	settings, err := role.Keeper.Parse(os.Args[2:])                                          // the role
//	files, err := role.Keeper.Inherit()
//
// Both sides are here, over one table, so that neither can know a flag, a descriptor or a word that the other does not.
package role

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"chrysalis/measure/engines"
)

// Role is a process of the service.
type Role uint8

// The roles, in the order in which they start: a guest that serves has the first three, and the borrower before them where its secret is
// borrowed, and fetch where charges are settled on chain; a custodian has custodian and lender, and a borrower where it takes its secret over from another.
const (
	Keeper     Role = iota + 1 // owns the keys that sign and the journal
	EngineHost                 // runs the engine in a container
	Gateway                    // answers the network
	Custodian                  // keeps the secret and counts its loans
	Lender                     // judges borrowers over the network, and lends what the custodian gives it
	Borrower                   // judges the lender, takes the loan and renews it
	Fetch                      // asks liteservers for the keeper, and judges nothing

	endOfRoles
)

// Users of the guest. No two roles that confine themselves share one.
const (
	KeeperUser  = 65530
	GatewayUser = 65531
	EngineUser  = 65532 // of the engine, in its container

	CustodianUser = 65529
	LenderUser    = 65528
	BorrowerUser  = 65527
	FetchUser     = 65526
)

// Names of the sockets in the directories of keeper and engine.
const (
	KeeperSocketName = "keeper.sock"
	EngineSocketName = engines.SocketName
	EngineRun        = engines.Run   // where the engine, in its container, sees the folder of that socket
	EngineModel      = engines.Model // and the model's volume
)

// EngineSocketOf returns the socket of one of the guest's engines out of the value of EngineSocket: the only one's itself, and of several that in
// the folder which engines.Nth makes of its.
func EngineSocketOf(value string, at, of int) string {
	return path.Join(engines.Nth(path.Dir(value), at, of), path.Base(value))
}

// Flag is an argument of a role by its name.
type Flag string

// The flags.
const (
	Measured     Flag = "measured"   // file with the measured config
	KeeperSocket Flag = "keeper"     // keeper's socket, inside the gateway's root
	EngineSocket Flag = "engine"     // engine's socket, inside the gateway's root; of several see EngineSocketOf
	Chroot       Flag = "chroot"     // the gateway's root
	Containerd   Flag = "containerd" // containerd's socket
	Rootfs       Flag = "rootfs"     // directory on which the engine's volume is mounted; of several models, this and the next two begin the names of theirs (engines.Nth)
	Model        Flag = "model"      // directory on which the model's volume is mounted
	SocketDir    Flag = "socket-dir" // directory for the engine's socket
	Image        Flag = "image"      // file with what the image says of itself and of those that may follow it
	Host         Flag = "host"       // file with the host document
	List         Flag = "list"       // file with a release list of the host's, which may be empty
)

// File is a descriptor of a role by what it is for.
type File string

// The descriptors.
const (
	SecretPipe File = "secret"   // the secret's message, to its end
	Journal    File = "journal"  // the journal's disk
	Socket     File = "socket"   // the keeper's, listening
	Proofs     File = "proofs"   // on which the keeper hands out what it has signed, for the host to keep
	Listener   File = "listener" // the TCP socket of the service, listening
	Quotes     File = "quotes"   // the stream to init that gives quotes
	Wipes      File = "wipes"    // the gateway's stream to engine-host, on which it asks for engines to be wiped
	Loans      File = "loans"    // the lender's stream to the custodian, the borrower's to init
	Chain      File = "chain"    // the keeper's stream to who asks liteservers, of which nobody is at the other end where nothing is settled
	Peer       File = "peer"     // the borrower's connection to whom the host calls its custodian
	Numbers    File = "numbers"  // on which the gateway says what it counts, for the host to read
	Status     File = "status"   // on which the role says its words
)

// contract is what both sides know of a role.
type contract struct {
	name    string
	argv    []string // what comes before the flags
	user    int      // which the role becomes; 0 is root
	network bool     // whether it starts in the guest's network
	flags   []Flag
	files   []File // from descriptor 3 on
	words   []Word
}

const (
	runtimeProgram    = "/usr/bin/runtime"
	engineHostProgram = "/usr/bin/engine-host"
	custodyProgram    = "/usr/bin/custody"
	fetchProgram      = "/usr/bin/fetch"
)

var contracts = []contract{
	Keeper: {
		name: "keeper", argv: []string{runtimeProgram, "keeper"}, user: KeeperUser,
		flags: []Flag{Measured},
		files: []File{SecretPipe, Journal, Socket, Proofs, Chain, Status},
		words: []Word{Ready, JournalTorn, JournalForeign, JournalOld, JournalRolledBack, JournalIO, JournalFull, JournalCorrupt, JournalShort, JournalRefused,
			ParamsRefused, ProxyOpen},
	},
	EngineHost: {
		name: "engine-host", argv: []string{engineHostProgram}, network: true,
		flags: []Flag{Measured, Containerd, Rootfs, Model, SocketDir},
		files: []File{Wipes, Status},
		words: []Word{Ready, EngineUp, EngineDown},
	},
	Gateway: {
		name: "gateway", argv: []string{runtimeProgram, "gateway"}, user: GatewayUser, network: true,
		flags: []Flag{Measured, KeeperSocket, EngineSocket, Chroot},
		files: []File{Listener, Quotes, Wipes, Numbers, Status},
		words: []Word{Ready},
	},
	Custodian: {
		name: "custodian", argv: []string{runtimeProgram, "custodian"}, user: CustodianUser,
		flags: []Flag{Measured},
		files: []File{SecretPipe, Journal, Loans, Status},
		words: []Word{Ready, Moved, JournalTorn, JournalForeign, JournalOld, JournalRolledBack, JournalIO, JournalFull, JournalCorrupt, JournalShort, JournalRefused},
	},
	// Lender and borrower have the sockets that init opened, and no network beside them.
	Lender: {
		name: "lender", argv: []string{custodyProgram, "lender"}, user: LenderUser,
		flags: []Flag{Measured, Image, Chroot},
		files: []File{Listener, Quotes, Loans, Status},
		words: []Word{Ready},
	},
	Borrower: {
		name: "borrower", argv: []string{custodyProgram, "borrower"}, user: BorrowerUser,
		flags: []Flag{Measured, Image, List, Chroot},
		files: []File{Peer, Quotes, Loans, Status},
		words: []Word{Ready, LoanRefused, LoanHeld, LoanLost},
	},
	// It has the network, and neither a key nor anything that counts.
	Fetch: {
		name: "fetch", argv: []string{fetchProgram, "fetch"}, user: FetchUser, network: true,
		flags: []Flag{Measured, Host, Chroot},
		files: []File{Chain, Status},
		words: []Word{Ready},
	},
}

// contract of a number that is no role is empty: it has no program to start.
func (r Role) contract() contract {
	if r == 0 || r >= endOfRoles {
		return contract{}
	}
	return contracts[r]
}

// All returns the roles in the order in which they start.
func All() []Role { return []Role{Keeper, EngineHost, Gateway, Custodian, Lender, Borrower, Fetch} }

// Named returns the role of that name, or zero.
func Named(name string) Role {
	return Role(max(0, slices.IndexFunc(contracts, func(c contract) bool { return c.name == name && name != "" })))
}

func (r Role) String() string { return r.contract().name }

// User is the user and group that the role becomes, or 0 for one that stays root.
func (r Role) User() int { return r.contract().user }

// Network reports whether the role starts in the guest's network. Another has a network namespace of its own, with no way out.
func (r Role) Network() bool { return r.contract().network }

// Files returns the role's descriptors in their order, the first being number 3.
func (r Role) Files() []File { return slices.Clone(r.contract().files) }

// Words returns what the role may say.
func (r Role) Words() []Word { return slices.Clone(r.contract().words) }

// firstFile is the number of a role's first descriptor.
const firstFile = 3

// Settings are the values of a role's flags.
type Settings map[Flag]string

// Argv returns the role's command line: program, name where the program has several, flags in the table's order. It refuses
// settings that Parse would refuse.
func (r Role) Argv(s Settings) ([]string, error) {
	c := r.contract()
	if len(c.argv) == 0 {
		return nil, fmt.Errorf("starting role %d: there is none", r)
	}
	argv := slices.Clone(c.argv)
	for _, f := range c.flags {
		if value, given := s[f]; given {
			argv = append(argv, "-"+string(f), value)
		}
	}
	for f := range s {
		if !slices.Contains(c.flags, f) {
			return nil, fmt.Errorf("starting %s: it has no flag %q", c.name, f)
		}
	}
	if _, err := r.Parse(argv[len(c.argv):]); err != nil {
		return nil, err
	}
	return argv, nil
}

// maxValueBytes bounds the value of a flag.
const maxValueBytes = 4096

// Parse parses what follows program and name on the role's command line: every flag with its value once, in any order, none
// unknown, none empty, none missing.
func (r Role) Parse(args []string) (Settings, error) {
	c := r.contract()
	s := Settings{}
	for len(args) > 0 {
		name, ok := strings.CutPrefix(args[0], "-")
		f := Flag(name)
		switch {
		case !ok || !slices.Contains(c.flags, f):
			return nil, fmt.Errorf("%s: argument %.100q is none of its flags", c.name, args[0])
		case len(args) < 2 || args[1] == "":
			return nil, fmt.Errorf("%s: flag -%s has no value", c.name, f)
		case len(args[1]) > maxValueBytes || strings.ContainsRune(args[1], 0):
			return nil, fmt.Errorf("%s: flag -%s has %d bytes or a zero byte, want at most %d and none", c.name, f, len(args[1]), maxValueBytes)
		case s[f] != "":
			return nil, fmt.Errorf("%s: flag -%s stands twice", c.name, f)
		}
		s[f], args = args[1], args[2:]
	}
	for _, f := range c.flags {
		if s[f] == "" {
			return nil, fmt.Errorf("%s: flag -%s is missing", c.name, f)
		}
	}
	return s, nil
}
