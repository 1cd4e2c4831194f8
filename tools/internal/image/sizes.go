package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"chrysalis/measure"
)

// maxGrowth is how much larger than recorded a release file may be, in percent, before somebody has to want it.
const maxGrowth = 5

// SizesFile is where a source tree records the sizes of its release's files.
const SizesFile = "image/sizes"

// FormatSizes returns the text of SizesFile for the files.
func FormatSizes(files []measure.File) string {
	var out strings.Builder
	out.WriteString("# Bytes of each file of the release. A file that grows past this by more than 5 % fails a test; a wanted change is recorded\n" +
		"# with: chrysalis image sizes > image/sizes\n")
	for _, f := range files {
		fmt.Fprintf(&out, "%s %d\n", f.Name, f.Size)
	}
	return out.String()
}

// CheckSizes holds the release's files against the sizes that the source tree records, and returns what has grown too much
// or is not recorded.
func CheckSizes(source string, files []measure.File) (grown []string, err error) {
	lines, err := readNames(filepath.Join(source, SizesFile))
	if err != nil {
		return nil, fmt.Errorf("checking sizes: %w", err)
	}
	recorded := map[string]int64{}
	for _, line := range lines {
		name, text, _ := strings.Cut(line, " ")
		size, err := strconv.ParseInt(text, 10, 64)
		if _, twice := recorded[name]; err != nil || size <= 0 || twice {
			return nil, fmt.Errorf("checking sizes: line %q of %s, want a name and its bytes, once", line, SizesFile)
		}
		recorded[name] = size
	}
	for _, f := range files {
		want, ok := recorded[f.Name]
		switch {
		case !ok:
			grown = append(grown, fmt.Sprintf("%s has %d bytes, and none are recorded", f.Name, f.Size))
		case f.Size*100 > want*(100+maxGrowth):
			grown = append(grown, fmt.Sprintf("%s has %d bytes, want at most %d %% more than the recorded %d", f.Name, f.Size, maxGrowth, want))
		}
		delete(recorded, f.Name)
	}
	for name := range recorded {
		grown = append(grown, fmt.Sprintf("%s is recorded, and not in the release", name))
	}
	return grown, nil
}

// ReleaseFiles returns the files that the manifest of a release folder names.
func ReleaseFiles(release string) ([]measure.File, error) {
	data, err := os.ReadFile(filepath.Join(release, "manifest.json"))
	if err != nil {
		return nil, err
	}
	m, err := measure.DecodeManifest(data)
	return m.Files, err
}
