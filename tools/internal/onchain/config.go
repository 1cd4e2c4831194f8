package onchain

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/fetch"
)

// MaxConfig bounds TON's global configuration file.
const MaxConfig = 1 << 20

// globalConfig is as much of TON's global configuration file as is read. The rest of it is others'.
type globalConfig struct {
	Liteservers []struct {
		IP   int64 `json:"ip"` // of 32 bits, signed or not
		Port uint16
		ID   struct{ Key []byte }
	}
	Validator struct {
		InitBlock blockJSON `json:"init_block"`
	}
}

// blockJSON is a block's name as the configuration file has it.
type blockJSON struct {
	Workchain int32  `json:"workchain"`
	Shard     int64  `json:"shard"`
	Seqno     uint32 `json:"seqno"`
	RootHash  []byte `json:"root_hash"`
	FileHash  []byte `json:"file_hash"`
}

func (b blockJSON) id() (chain.BlockID, error) {
	if len(b.RootHash) != 32 || len(b.FileHash) != 32 {
		return chain.BlockID{}, fmt.Errorf("block has hashes of %d and %d bytes, want 32", len(b.RootHash), len(b.FileHash))
	}
	return chain.BlockID{Workchain: b.Workchain, Shard: uint64(b.Shard), Seqno: b.Seqno, RootHash: [32]byte(b.RootHash),
		FileHash: [32]byte(b.FileHash)}, nil
}

func blockOf(id chain.BlockID) blockJSON {
	return blockJSON{id.Workchain, int64(id.Shard), id.Seqno, id.RootHash[:], id.FileHash[:]}
}

// ReadConfig takes the liteservers out of a global configuration file and, if it is trusted, the block to begin with: the chain is then
// whatever the file's writer wants. The first few servers are as good as all.
func ReadConfig(raw []byte, trust bool, global int32) (chain.Network, []fetch.Server, error) {
	n := chain.Mainnet
	if len(raw) > MaxConfig {
		return n, nil, fmt.Errorf("it has more than %d bytes", MaxConfig)
	}
	var c globalConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return n, nil, err
	}
	var servers []fetch.Server
	for i, s := range c.Liteservers {
		if len(s.ID.Key) != 32 || s.IP < -1<<31 || s.IP >= 1<<32 {
			return n, nil, fmt.Errorf("liteserver %d has a key of %d bytes and address %d", i, len(s.ID.Key), s.IP)
		}
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], uint32(s.IP))
		servers = append(servers, fetch.Server{Address: netip.AddrPortFrom(netip.AddrFrom4(ip), s.Port), Key: [32]byte(s.ID.Key)})
	}
	servers = servers[:min(len(servers), fetch.MaxServers)]
	if trust {
		id, err := c.Validator.InitBlock.id()
		if err != nil {
			return n, nil, fmt.Errorf("init_block: %w", err)
		}
		n = chain.Network{Name: "of one's own", GlobalID: global, Anchor: chain.Head{Key: id, Last: id}}
	}
	return n, servers, nil
}

// WriteConfig writes a global configuration file as ReadConfig reads it, for a chain of one's own.
func WriteConfig(n chain.Network, servers []fetch.Server) ([]byte, error) {
	var list []map[string]any
	for _, s := range servers {
		ip := s.Address.Addr().As4()
		list = append(list, map[string]any{"ip": int32(binary.BigEndian.Uint32(ip[:])), "port": s.Address.Port(),
			"id": map[string]any{"@type": "pub.ed25519", "key": s.Key[:]}})
	}
	return json.MarshalIndent(map[string]any{"@type": "config.global", "liteservers": list,
		"validator": map[string]any{"init_block": blockOf(n.Anchor.Key)}}, "", "  ")
}

// keptHead is how far a chain was followed, as a file has it. Who can write the file decides what is proven from then on.
type keptHead struct {
	Anchor string `json:"anchor"` // root hash of the block that all began with
	Seqno  uint32 `json:"seqno"`  // of the newest block, for people
	Head   []byte `json:"head"`
}

func anchorName(n chain.Network) string {
	return base64.StdEncoding.EncodeToString(n.Anchor.Key.RootHash[:])
}

// loadHead returns the head that a file keeps, or the network's anchor where there is none or it is of another anchor.
func loadHead(file string, n chain.Network) (chain.Head, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return n.Anchor, nil
	}
	if err != nil {
		return chain.Head{}, err
	}
	var k keptHead
	if err := json.Unmarshal(raw, &k); err != nil {
		return chain.Head{}, fmt.Errorf("%s keeps how far the chain was followed, and can't be read (%v): remove it", file, err)
	}
	if k.Anchor != anchorName(n) {
		return n.Anchor, nil
	}
	h, err := chain.ReadHead(k.Head)
	if err != nil {
		return chain.Head{}, fmt.Errorf("%s keeps how far the chain was followed, and can't be read (%v): remove it", file, err)
	}
	return h, nil
}

func saveHead(file string, n chain.Network, h chain.Head) error {
	raw, err := json.MarshalIndent(keptHead{anchorName(n), h.Last.Seqno, h.Append(nil)}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, append(raw, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}
