package chain

import "encoding/base64"

// Mainnet begins at the key block that TON's global configuration file names as init_block; five public copies of that file have the
// same one. It is of the beginning of 2024: the way from there to a block of today leads over every key block since, once; the newest
// known is kept then. A newer anchor makes that way shorter, and is believed for no better reason.
var Mainnet = Network{Name: "mainnet", GlobalID: -239, Anchor: anchor(34835953,
	"VpWyfNOLm8Rqt6CZZ9dZGqJRO3NyrlHHYN1k1oLbJ6g=", "8o12KX54BtJM8RERD1J97Qe1ZWk61LIIyXydlBnixK8=")}

// Networks are those that are compiled in.
var Networks = []Network{Mainnet}

// anchor is a key block whose hashes are written as the configuration file has them.
func anchor(seqno uint32, root, file string) Head {
	id := BlockID{Workchain: Masterchain, Shard: wholeShard, Seqno: seqno, RootHash: hash(root), FileHash: hash(file)}
	return Head{Key: id, Last: id}
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
