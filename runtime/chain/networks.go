package chain

import (
	"encoding/base64"
	"time"
)

// Mainnet begins at the key block that TON's global configuration file names as init_block, in the repository of its publisher
// (ton-blockchain/ton-blockchain.github.io, commit 30e3111 of 2025-02-20). It is of the beginning of 2025: the way from there to a block of today leads over every key block since, once; the newest
// known is kept then. A newer anchor makes that way shorter, and is believed for no better reason. `chrysalis chain renew` writes one here.
var Mainnet = anchored("mainnet", -239, "2025-02-01", 43792209,
	"AvaCaskwbUZCAOkULgK9zqtArFavpqg/KMTu9qO4M1U=", "mlMbjSH0ahszX7yNIQOOawmCJxzofpaTeqlsrQspqUk=")

// Networks are those that are compiled in.
var Networks = []Network{Mainnet}

// anchored is a network whose anchor's hashes are written as the configuration file has them, and the day on which it was the newest key
// block; of the first that was written here, a day before that.
func anchored(name string, global int32, day string, seqno uint32, root, file string) Network {
	of, err := time.Parse(time.DateOnly, day)
	if err != nil {
		panic("a day that is compiled in: " + day)
	}
	id := BlockID{Workchain: Masterchain, Shard: wholeShard, Seqno: seqno, RootHash: hash(root), FileHash: hash(file)}
	return Network{Name: name, GlobalID: global, Anchor: Head{Key: id, Last: id}, Anchored: of}
}

func hash(text string) [32]byte {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 {
		panic("a hash that is compiled in: " + text)
	}
	return [32]byte(raw)
}

// NewNetwork returns a network that begins at a key block of the caller's, which is believed.
func NewNetwork(name string, globalID int32, seqno uint32, root, file [32]byte) Network {
	id := BlockID{Workchain: Masterchain, Shard: wholeShard, Seqno: seqno, RootHash: root, FileHash: file}
	return Network{Name: name, GlobalID: globalID, Anchor: Head{Key: id, Last: id}}
}
