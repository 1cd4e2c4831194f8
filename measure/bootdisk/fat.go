package bootdisk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Attributes of a directory entry. Microsoft FAT specification, section 6.
const (
	fatEntryBytes   = 32
	attrVolumeLabel = 0x08
	attrDirectory   = 0x10
	attrLongName    = 0x0f
	endOfChain      = 0x0ffffff8
	clusterMask     = 0x0fffffff
)

// maxDirectoryBytes bounds a directory: three entries are all that is wanted.
const maxDirectoryBytes = 64 << 10

// fat is a FAT32 file system.
type fat struct {
	r            *io.SectionReader
	table        int64 // where the first allocation table starts
	data         int64 // where cluster 2 starts
	clusterBytes int64
	clusters     uint32 // number of data clusters
}

type fatEntry struct {
	name    string // NAME.EXT, or the raw name of one that is no short name
	dir     bool
	cluster uint32
	size    uint32
}

// readESP returns EFI/BOOT/BOOTX64.EFI of a file system that holds nothing else.
func readESP(r *io.SectionReader) ([]byte, error) {
	f, root, err := openFAT(r)
	if err != nil {
		return nil, err
	}
	at, path := fatEntry{dir: true, cluster: root}, ""
	for _, name := range []string{"EFI", "BOOT", "BOOTX64.EFI"} {
		list, err := f.list(at.cluster)
		if err != nil {
			return nil, fmt.Errorf("folder /%s: %w", path, err)
		}
		if len(list) != 1 || list[0].name != name || list[0].dir != (name != "BOOTX64.EFI") {
			return nil, fmt.Errorf("folder /%s holds %s, want %s alone", path, names(list), name)
		}
		at, path = list[0], strings.TrimPrefix(path+"/"+name, "/")
	}
	if at.size == 0 || at.size > MaxUKIBytes {
		return nil, fmt.Errorf("/%s has %d bytes, want 1 to %d", path, at.size, MaxUKIBytes)
	}
	uki, err := f.read(at.cluster, int64(at.size))
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", path, err)
	}
	return uki[:at.size], nil
}

func names(list []fatEntry) string {
	if len(list) == 0 {
		return "nothing"
	}
	var all []string
	for _, e := range list {
		all = append(all, fmt.Sprintf("%q", e.name))
	}
	return strings.Join(all, ", ")
}

func openFAT(r *io.SectionReader) (f fat, root uint32, err error) {
	b := make([]byte, sectorBytes)
	if _, err := r.ReadAt(b, 0); err != nil {
		return f, 0, err
	}
	le := binary.LittleEndian
	perCluster, reserved, tables := int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	sectors, perTable := int64(le.Uint32(b[32:])), int64(le.Uint32(b[36:]))
	if b[510] != 0x55 || b[511] != 0xaa || le.Uint16(b[11:]) != sectorBytes || le.Uint16(b[17:]) != 0 || le.Uint16(b[22:]) != 0 {
		return f, 0, fmt.Errorf("boot sector is not that of a FAT32 with sectors of %d bytes", sectorBytes)
	}
	first := reserved + tables*perTable
	if perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || tables == 0 || tables > 2 || first >= sectors ||
		sectors > r.Size()/sectorBytes {
		return f, 0, fmt.Errorf("%d sectors, %d to a cluster, data from sector %d: want at most %d, a power of two, and data inside", sectors,
			perCluster, first, r.Size()/sectorBytes)
	}
	clusters := (sectors - first) / perCluster
	if clusters < 65525 || (clusters+2)*4 > perTable*sectorBytes {
		return f, 0, fmt.Errorf("%d clusters under a table of %d sectors, want at least 65525, as a FAT32 has, all in the table",
			clusters, perTable)
	}
	return fat{r, reserved * sectorBytes, first * sectorBytes, perCluster * sectorBytes, uint32(clusters)}, le.Uint32(b[44:]), nil
}

// read returns the clusters of a chain: all of it, which must be as long as size bytes need. A size below zero is any size
// up to maxDirectoryBytes.
func (f fat) read(cluster uint32, size int64) ([]byte, error) {
	limit := size
	if size < 0 {
		limit = maxDirectoryBytes
	}
	var out []byte
	for cluster < endOfChain {
		if int64(len(out)) >= limit {
			return nil, fmt.Errorf("its chain goes on after %d bytes, want its end", len(out))
		}
		if cluster < 2 || cluster-2 >= f.clusters {
			return nil, fmt.Errorf("its chain has cluster %d, want 2 to %d", cluster, f.clusters+1)
		}
		data := make([]byte, f.clusterBytes)
		if _, err := f.r.ReadAt(data, f.data+int64(cluster-2)*f.clusterBytes); err != nil {
			return nil, err
		}
		out = append(out, data...)
		var next [4]byte
		if _, err := f.r.ReadAt(next[:], f.table+4*int64(cluster)); err != nil {
			return nil, err
		}
		cluster = binary.LittleEndian.Uint32(next[:]) & clusterMask
	}
	if int64(len(out)) < size {
		return nil, fmt.Errorf("its chain has %d bytes, want %d", len(out), size)
	}
	return out, nil
}

// list returns what a directory holds, without its label, itself and its parent.
func (f fat) list(cluster uint32) (list []fatEntry, err error) {
	data, err := f.read(cluster, -1)
	if err != nil {
		return nil, err
	}
	for ; len(data) >= fatEntryBytes && data[0] != 0; data = data[fatEntryBytes:] {
		e := data[:fatEntryBytes]
		attr := e[11]
		if e[0] == 0xe5 { // a name that was removed; what it named may be there, but the firmware does not find it
			continue
		}
		if attr&attrLongName == attrLongName {
			return nil, errors.New("it has a long name, want none")
		}
		if attr&attrVolumeLabel != 0 {
			continue
		}
		name := strings.TrimRight(string(e[:8]), " ")
		if extension := strings.TrimRight(string(e[8:11]), " "); extension != "" {
			name += "." + extension
		}
		if attr&attrDirectory != 0 && (name == "." || name == "..") {
			continue
		}
		list = append(list, fatEntry{
			name: name, dir: attr&attrDirectory != 0, size: binary.LittleEndian.Uint32(e[28:]),
			cluster: uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:])),
		})
	}
	return list, nil
}
