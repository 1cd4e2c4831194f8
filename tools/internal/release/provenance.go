package release

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	slsa "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"chrysalis/measure"
	"chrysalis/measure/register"
)

const (
	predicateSLSA = "https://slsa.dev/provenance/v1"
	buildType     = "urn:chrysalis:image-build:v1"
	builderID     = "urn:chrysalis:image-build"

	maxProvenanceBytes = 1 << 20
)

// Material is an input of the build.
type Material struct {
	Name   string // such as image/image.lock
	SHA256 register.Digest
	Note   string // for what has no digest of its own: the Go toolchain, whose version is in Name
}

// Subjects are the files that provenance speaks of, sorted: everything in a release folder but itself.
func Subjects() []string {
	return slices.Sorted(slices.Values(slices.Concat(measure.ReleaseFiles(), measure.ReleaseDocuments(), []string{ManifestName})))
}

// Provenance writes an in-toto statement with SLSA provenance over the files of a release folder. It names no builder's
// machine and no time, for the statement must be the same wherever the release is rebuilt; who signs it says who built.
func Provenance(dir string, m measure.Manifest, materials []Material) ([]byte, error) {
	b, err := provenance(dir, m, materials)
	if err != nil {
		return nil, fmt.Errorf("writing provenance: %w", err)
	}
	return b, nil
}

func provenance(dir string, m measure.Manifest, materials []Material) ([]byte, error) {
	parameters, err := structpb.NewStruct(map[string]any{"profile": m.Profile, "lock": m.Lock})
	if err != nil {
		return nil, err
	}
	p := &slsa.Provenance{
		BuildDefinition: &slsa.BuildDefinition{BuildType: buildType, ExternalParameters: parameters},
		RunDetails:      &slsa.RunDetails{Builder: &slsa.Builder{Id: builderID}},
	}
	for _, input := range materials {
		d := &intoto.ResourceDescriptor{Name: input.Name}
		if input.SHA256 != (register.Digest{}) {
			d.Digest = map[string]string{"sha256": input.SHA256.String()}
		} else if d.Annotations, err = structpb.NewStruct(map[string]any{"note": input.Note}); err != nil {
			return nil, err
		}
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, d)
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	predicate := &structpb.Struct{}
	if err := protojson.Unmarshal(text, predicate); err != nil {
		return nil, err
	}
	s := &intoto.Statement{Type: intoto.StatementTypeUri, PredicateType: predicateSLSA, Predicate: predicate}
	for _, name := range Subjects() {
		sum, _, err := HashFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		s.Subject = append(s.Subject, &intoto.ResourceDescriptor{Name: name, Digest: map[string]string{"sha256": sum.String()}})
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if text, err = protojson.Marshal(s); err != nil {
		return nil, err
	}
	// protojson varies its spaces from program to program on purpose; the canonical form (RFC 8785) is one.
	value := jsontext.Value(text)
	if err := value.Canonicalize(); err != nil {
		return nil, err
	}
	return append(value, '\n'), nil
}

// CheckProvenance reads a statement of provenance and checks that it speaks of exactly the files of the release folder, as they
// lie there. It does not check who made the statement: Verify and VerifyKeys do.
func CheckProvenance(dir string, statement []byte) error {
	if err := checkProvenance(dir, statement); err != nil {
		return fmt.Errorf("checking provenance: %w", err)
	}
	return nil
}

func checkProvenance(dir string, statement []byte) error {
	if len(statement) > maxProvenanceBytes {
		return fmt.Errorf("%d bytes, want at most %d", len(statement), maxProvenanceBytes)
	}
	s := &intoto.Statement{}
	if err := protojson.Unmarshal(statement, s); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if s.PredicateType != predicateSLSA {
		return fmt.Errorf("predicate is %q, want %q", s.PredicateType, predicateSLSA)
	}
	want := map[string]string{}
	for _, subject := range s.Subject {
		sum := subject.Digest["sha256"]
		if _, twice := want[subject.Name]; twice || sum == "" {
			return fmt.Errorf("subject %q stands twice or has no SHA-256", subject.Name)
		}
		want[subject.Name] = sum
	}
	if names := slices.Sorted(maps.Keys(want)); !slices.Equal(names, Subjects()) {
		return fmt.Errorf("subjects are %q, want %q", names, Subjects())
	}
	for _, name := range Subjects() {
		got, _, err := HashFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if got.String() != want[name] {
			return fmt.Errorf("%s: sha256 %s, want %s", name, got, want[name])
		}
	}
	return nil
}

// HashFile returns the SHA-256 and the size of a regular file.
func HashFile(path string) (sum register.Digest, size int64, err error) {
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() { // opening a pipe would wait for its writer
		return sum, 0, cmp.Or(err, fmt.Errorf("%s is no regular file", path))
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return sum, 0, err
	}
	return register.Digest(h.Sum(nil)), size, nil
}
