package proof

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/runtime/api"
)

// FuzzForms reads what may come as an answer of each path. What has come to its end says the same when it is read again.
func FuzzForms(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "answers", "*"))
	if err != nil || len(files) < 9 {
		f.Fatalf("recorded answers: %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		path := api.Answers()[slices.IndexFunc(api.Answers(), func(p string) bool {
			return strings.HasPrefix(filepath.Base(file), strings.ReplaceAll(strings.TrimPrefix(p, "/v1/"), "/", "-")+"-")
		})]
		f.Add(path, string(text))
	}
	f.Fuzz(func(t *testing.T, path, text string) {
		if !slices.Contains(api.Answers(), path) {
			return
		}
		s, reached, err := readStream(path, text)
		again, reachedAgain, errAgain := readStream(path, text)
		if (err == nil) != (errAgain == nil) || reached != reachedAgain || s.said() != again.said() {
			t.Errorf("read twice: %q to %d, and %q to %d", s.said(), reached, again.said(), reachedAgain)
		}
		_ = formOf(path).whole(&stream{}, []byte(text))
	})
}
