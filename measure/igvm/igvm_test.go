package igvm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/snp"
	"chrysalis/measure/tdvf"
)

// builder writes files for tests. Page data is told from headers by its place, which only the end knows: offsets are put in then.
type builder struct {
	version uint32
	headers []byte
	data    []byte
	offsets []int // in headers, of offsets into data
}

var le = binary.LittleEndian

func (b *builder) header(typ uint32, body []byte) {
	b.headers = le.AppendUint32(le.AppendUint32(b.headers, typ), uint32(len(body)))
	b.headers = append(b.headers, body...)
	b.headers = append(b.headers, make([]byte, -len(body)&7)...)
}

func (b *builder) platform(p Platform, mask uint32) {
	body := append(le.AppendUint32(nil, mask), 2, byte(p), 1, 0)
	b.header(typePlatform, append(body, make([]byte, 8)...))
}

func (b *builder) policy(policy uint64, mask uint32) {
	b.header(typePolicy, le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, policy), mask), 0))
}

// put remembers that the offset of a page stands at a byte of the next header's body.
func (b *builder) put(at int, page []byte) uint32 {
	if page == nil {
		return 0
	}
	b.offsets = append(b.offsets, len(b.headers)+8+at)
	b.data = append(b.data, page...)
	return uint32(len(b.data) - len(page))
}

func (b *builder) page(address uint64, mask, flags uint32, kind uint16, page []byte) {
	offset := b.put(12, page)
	body := le.AppendUint32(le.AppendUint64(nil, address), mask)
	body = le.AppendUint32(le.AppendUint32(body, offset), flags)
	b.header(typePageData, le.AppendUint16(le.AppendUint16(body, kind), 0))
}

func (b *builder) registers(address uint64, mask uint32, index uint16, page []byte) {
	offset := b.put(12, page)
	body := le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, address), mask), offset)
	b.header(typeRegisters, le.AppendUint16(le.AppendUint16(body, index), 0))
}

func (b *builder) area(number uint32, size uint64) {
	b.header(typeParameterArea, le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, size), number), 0))
}

func (b *builder) insert(address uint64, mask, number uint32) {
	b.header(typeParameterInsert, le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, address), mask), number))
}

func (b *builder) required(address uint64, mask, size uint32) {
	body := le.AppendUint32(le.AppendUint32(le.AppendUint64(nil, address), mask), size)
	b.header(typeRequiredMemory, append(body, make([]byte, 8)...))
}

// file puts it together, with its checksum.
func (b *builder) file() []byte {
	fixed := fixedBytes
	if b.version == 0 {
		b.version = 1
	}
	if b.version == 2 {
		fixed = fixedBytes2
	}
	headers := bytes.Clone(b.headers)
	for _, at := range b.offsets {
		le.PutUint32(headers[at:], le.Uint32(headers[at:])+uint32(fixed+len(headers)))
	}
	out := []byte(magic)
	for _, v := range []uint32{b.version, uint32(fixed), uint32(len(headers)), uint32(fixed + len(headers) + len(b.data)), 0} {
		out = le.AppendUint32(out, v)
	}
	if b.version == 2 {
		out = le.AppendUint32(le.AppendUint32(out, architectureX), pageBytes)
	}
	return resum(append(append(out, headers...), b.data...))
}

// resum writes the checksum anew.
func resum(file []byte) []byte {
	le.PutUint32(file[20:], 0)
	le.PutUint32(file[20:], crc32.ChecksumIEEE(file[:le.Uint32(file[8:])+le.Uint32(file[12:])]))
	return file
}

const (
	maskSNP, maskTDX = 1, 2
	resetVector      = 0xfffffff0
)

func randomPage(seed byte) []byte {
	page := make([]byte, pageBytes)
	rand.NewChaCha8([32]byte{seed}).Read(page)
	return page
}

// example has each kind of directive for both platforms.
func example() *builder {
	b := &builder{}
	b.platform(SEVSNP, maskSNP)
	b.platform(TDX, maskTDX)
	b.policy(0x30000, maskSNP)
	b.page(0x100000, maskSNP|maskTDX, 0, dataNormal, randomPage(1))
	b.page(0x101000, maskSNP|maskTDX, 0, dataNormal, nil)
	b.page(0x102000, maskSNP, flagUnmeasured, dataNormal, randomPage(2))
	b.page(0x103000, maskTDX, flagUnmeasured, dataNormal, nil)
	b.page(0x104000, maskSNP, 0, dataSecrets, nil)
	b.page(0x105000, maskSNP, 0, dataCPUID, randomPage(3))
	b.page(0x106000, maskSNP, 0, dataCPUIDXF, nil)
	b.page(0x107000, maskSNP|maskTDX, flagShared, dataNormal, randomPage(4))
	b.area(7, 2*pageBytes)
	b.header(0x30c, make([]byte, 8)) // a memory map into it
	b.insert(0x200000, maskSNP|maskTDX, 7)
	b.required(0x300000, maskSNP|maskTDX, 0x10000)
	b.registers(registersAddress, maskSNP, 0, snp.Registers(snp.QEMU, resetVector, 0x800f12, 1))
	return b
}

// TestLaunchDigestOfFirmware writes firmware as a file and compares with the digest of the same firmware at Google, whose guests take
// memory unmeasured, as a file's are; that digest is held against virtee's and Google's own programs.
func TestLaunchDigestOfFirmware(t *testing.T) {
	firmware, err := os.ReadFile("../snp/testdata/ovmf_OvmfX64_suffix.bin")
	if err != nil {
		t.Fatal(err)
	}
	firmware = append(randomPage(9), firmware...)
	// A calling area of an SVSM is a page of another type, which a file can't ask for: let it be memory.
	if caa := []byte{4, 0, 0, 0}; bytes.Count(firmware[pageBytes:], slices.Concat([]byte{0, 0x10, 0, 0}, caa)) == 1 {
		copy(firmware[pageBytes+bytes.Index(firmware[pageBytes:], slices.Concat([]byte{0, 0x10, 0, 0}, caa))+4:], []byte{1})
	}
	sections, err := snp.Sections(firmware)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []uint32{1, 2} {
		b := &builder{version: version}
		b.platform(SEVSNP, maskSNP)
		b.policy(0x30000, maskSNP)
		for at := 0; at < len(firmware); at += pageBytes {
			b.page(uint64(1<<32-len(firmware)+at), maskSNP, 0, dataNormal, firmware[at:at+pageBytes])
		}
		for _, s := range sections {
			for at := s.Address; at < s.Address+s.Size; at += pageBytes {
				switch s.Kind {
				case snp.KindSecrets:
					b.page(uint64(at), maskSNP, 0, dataSecrets, nil)
				case snp.KindCPUID:
					b.page(uint64(at), maskSNP, 0, dataCPUID, nil)
				default:
					b.page(uint64(at), maskSNP, flagUnmeasured, dataNormal, nil)
				}
			}
		}
		b.registers(registersAddress, maskSNP, 0, snp.Registers(snp.GCE, resetVector, 0, 1))
		file, err := Parse(b.file())
		if err != nil {
			t.Fatal(err)
		}
		got, err := file.LaunchDigest()
		if err != nil {
			t.Fatal(err)
		}
		want, err := snp.Digest(snp.Launch{Firmware: firmware, VMM: snp.GCE, VCPUs: 1, GuestFeatures: 1})
		if err != nil || got != want {
			t.Errorf("version %d: got %x, want %x (%v)", version, got, want, err)
		}
		if !file.InOrder() {
			t.Error("register states are last, and it is not said")
		}
	}
}

// TestMRTDOfFirmware does so with TDX.
func TestMRTDOfFirmware(t *testing.T) {
	sections := []tdvf.Section{{Offset: 0, Size: 3 * pageBytes, Address: 0xffffd000, Memory: 3 * pageBytes, Flags: 1}, {Address: 0x810000, Memory: 2 * pageBytes, Type: 3}}
	code := slices.Concat(randomPage(1), randomPage(2), randomPage(3))
	b := &builder{}
	b.platform(TDX, maskTDX)
	m := tdvf.NewMeasurement()
	for _, s := range sections {
		for at := uint64(0); at < s.Memory; at += pageBytes {
			m.Add(s.Address + at)
			if s.Flags == 1 {
				b.page(s.Address+at, maskTDX, 0, dataNormal, code[at:at+pageBytes])
				m.Extend(s.Address+at, [pageBytes]byte(code[at:]))
			} else {
				b.page(s.Address+at, maskTDX, flagUnmeasured, dataNormal, nil)
			}
		}
	}
	file, err := Parse(b.file())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := file.MRTD(); err != nil || got != m.MRTD() {
		t.Errorf("got %x (%v), want %x", got, err, m.MRTD())
	}
	if _, err := file.LaunchDigest(); err == nil || !strings.Contains(err.Error(), "no guest for SEV-SNP") {
		t.Errorf("launch digest: got %v, want a refusal", err)
	}
}

// TestDirectives: what counts in each platform's measurement, and what does not.
func TestDirectives(t *testing.T) {
	whole, err := Parse(example().file())
	if err != nil {
		t.Fatal(err)
	}
	snpWant, err := whole.LaunchDigest()
	if err != nil {
		t.Fatal(err)
	}
	tdxWant, err := whole.MRTD()
	if err != nil {
		t.Fatal(err)
	}
	if got := whole.Platforms(); !slices.Equal(got, []Platform{SEVSNP, TDX}) {
		t.Errorf("platforms: got %v", got)
	}
	if policy, there := whole.Policy(); !there || policy != 0x30000 {
		t.Errorf("policy: got %#x", policy)
	}
	if _, there := whole.Promised(); there {
		t.Error("there is an ID block")
	}
	for _, tt := range []struct {
		name     string
		edit     func(*builder)
		snp, tdx bool // whether it changes
	}{
		{"another page", func(b *builder) { b.page(0x400000, maskSNP|maskTDX, 0, dataNormal, randomPage(5)) }, true, true},
		{"a page of zeros", func(b *builder) { b.page(0x400000, maskSNP|maskTDX, 0, dataNormal, nil) }, true, true},
		{"a page of TDX alone", func(b *builder) { b.page(0x400000, maskTDX, 0, dataNormal, nil) }, false, true},
		{"a shared page", func(b *builder) { b.page(0x400000, maskSNP|maskTDX, flagShared, dataNormal, randomPage(5)) }, false, false},
		{"an unmeasured page", func(b *builder) { b.page(0x400000, maskSNP|maskTDX, flagUnmeasured, dataNormal, randomPage(5)) }, true, true},
		{"another register state", func(b *builder) { b.registers(registersAddress, maskSNP, 1, randomPage(5)) }, true, false},
		{"required memory", func(b *builder) { b.required(0x500000, maskSNP|maskTDX, 0x1000) }, false, false},
		{"a parameter area that nobody inserts", func(b *builder) { b.area(8, pageBytes) }, false, false},
		{"a parameter area", func(b *builder) { b.area(8, pageBytes); b.insert(0x500000, maskSNP|maskTDX, 8) }, true, true},
		{"a header that may be passed over", func(b *builder) { b.header(optionalHeader|0x3ff, make([]byte, 8)) }, false, false},
		{"an ID block", func(b *builder) {
			b.header(typeIDBlock, append([]byte{maskSNP, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{7}, 672)...))
		}, false, false},
	} {
		b := example()
		tt.edit(b)
		file, err := Parse(b.file())
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		gotSNP, err := file.LaunchDigest()
		if err != nil {
			t.Fatal(err)
		}
		gotTDX, err := file.MRTD()
		if err != nil {
			t.Fatal(err)
		}
		if (gotSNP != snpWant) != tt.snp || (gotTDX != tdxWant) != tt.tdx {
			t.Errorf("%s: launch digest changes %t, MRTD %t, want %t and %t", tt.name, gotSNP != snpWant, gotTDX != tdxWant, tt.snp, tt.tdx)
		}
		if _, there := file.Promised(); there != (tt.name == "an ID block") {
			t.Errorf("%s: ID block there: %t", tt.name, there)
		}
		if want := !strings.HasPrefix(tt.name, "a p") && tt.name != "another page" && tt.name != "an unmeasured page" || !tt.snp; file.InOrder() != want &&
			tt.name != "a shared page" {
			t.Errorf("%s: in order %t, want %t", tt.name, file.InOrder(), want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(at int, value ...byte) []byte {
		b := example().file()
		copy(b[at:], value)
		return b
	}
	with := func(change func(*builder)) []byte {
		b := example()
		change(b)
		return b.file()
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "0 bytes"},
		{"another format", edit(0, 'E', 'L', 'F'), `with "IGVM" in front`},
		{"version", resum(edit(4, 3)), "version is 3"},
		{"checksum", edit(30, 0xff), "checksum of headers"},
		{"trailing byte", append(example().file(), 0), "the file says"},
		{"headers elsewhere", resum(edit(8, 32)), "want them at 24"},
		{"no platform", (&builder{}).file(), "no platform"},
		{"a platform twice", func() []byte { b := &builder{}; b.platform(TDX, 1); b.platform(TDX, 2); return b.file() }(), "each platform once"},
		{"a platform behind", with(func(b *builder) { b.platform(3, 4) }), "stands behind"},
		{"an unknown header", with(func(b *builder) { b.header(0x3ff, make([]byte, 8)) }), "unknown"},
		{"a large page", with(func(b *builder) { b.page(0x400000, 1, flagLarge, 0, nil) }), "large pages"},
		{"an unknown kind", with(func(b *builder) { b.page(0x400000, 1, 0, 4, nil) }), "not known"},
		{"half a page's address", with(func(b *builder) { b.page(0x400800, 1, 0, 0, nil) }), "want that of a page"},
		{"an area that is not there", with(func(b *builder) { b.insert(0, 1, 9) }), "no area 9"},
		{"an area inserted twice", with(func(b *builder) { b.area(9, pageBytes); b.insert(0, 1, 9); b.insert(0, 1, 9) }), "no area 9"},
		{"an area declared twice", with(func(b *builder) { b.area(9, pageBytes); b.area(9, pageBytes) }), "each number once"},
		{"a vast area", with(func(b *builder) { b.area(9, 1<<40) }), "at most"},
		{"no register state", with(func(b *builder) { b.registers(registersAddress, 1, 0, nil) }), "the file has none"},
		{"another size", with(func(b *builder) { b.header(typePageData, make([]byte, 16)) }), "16 bytes, want 24"},
		{"a page past the end", func() []byte {
			b := example()
			b.page(0x400000, 1, 0, 0, nil)
			le.PutUint32(b.headers[len(b.headers)-12:], 0x7fffffff)
			return b.file()
		}(), "page at"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
	b := &builder{}
	b.platform(SEVSNP, 1)
	b.page(0, 1, 0, 0, nil)
	file, err := Parse(b.file())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.LaunchDigest(); err == nil || !strings.Contains(err.Error(), "no guest policy") {
		t.Errorf("without a policy: got %v, want a refusal", err)
	}
}

// TestMutations: whatever byte is changed, under a right checksum, the file is refused, or a measurement changes, or the byte is one
// that is not measured: an unmeasured, shared or CPUID page, a reserved byte, a policy, an index.
func TestMutations(t *testing.T) {
	good := example().file()
	whole, err := Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	snpWant, _ := whole.LaunchDigest()
	tdxWant, _ := whole.MRTD()
	data := int(le.Uint32(good[8:]) + le.Uint32(good[12:]))
	for at := 0; at < len(good); at += 1 {
		if at >= data && at%61 != 0 {
			continue
		}
		bad := bytes.Clone(good)
		bad[at] ^= 0x21
		if _, err := Parse(bad); at < data && at >= fixedBytes && err == nil {
			t.Fatalf("byte %d: its checksum did not tell", at)
		}
		if at >= 8 && at < 16 {
			continue // where the checksum ends
		}
		file, err := Parse(resum(bad))
		if err != nil {
			continue
		}
		gotSNP, err1 := file.LaunchDigest()
		gotTDX, err2 := file.MRTD()
		measured := at >= data && (at-data)/pageBytes == 0 || at >= data+4*pageBytes // the first page, and the register state
		if measured && err1 == nil && err2 == nil && gotSNP == snpWant && gotTDX == tdxWant {
			t.Errorf("byte %d of measured data: nothing changes", at)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example().file())
	v2 := example()
	v2.version = 2
	f.Add(v2.file())
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, image []byte) {
		if len(image) >= fixedBytes2 && uint64(le.Uint32(image[8:]))+uint64(le.Uint32(image[12:])) <= uint64(len(image)) &&
			uint64(le.Uint32(image[8:]))+uint64(le.Uint32(image[12:])) >= fixedBytes {
			image = resum(bytes.Clone(image))
		}
		file, err := Parse(image)
		if err != nil {
			return
		}
		for _, p := range file.Platforms() {
			if p == SEVSNP {
				_, _ = file.LaunchDigest()
			} else if _, err := file.MRTD(); err != nil {
				t.Errorf("a file with TDX has no MRTD: %v", err)
			}
		}
		file.InOrder()
	})
}
