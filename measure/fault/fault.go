// Package fault says what is wrong with a document in the words of the one who wrote it: without the types of a program.
package fault

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var kinds = map[jsontext.Kind]string{
	'n': "null", 'f': "false", 't': "true", '"': "a string", '0': "a number", '{': "an object", '[': "an array",
}

// JSON says what the decoder of a JSON document refused: where in the document, and what stands there. Of an error that is not the
// decoder's, and nil, it gives as they are.
func JSON(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntactic) && errors.Is(err, jsontext.ErrDuplicateName):
		return fmt.Errorf("duplicate object member %.200q", string(syntactic.JSONPointer))
	case errors.As(err, &syntactic):
		return fmt.Errorf("no JSON at byte %d: %v", syntactic.ByteOffset, syntactic.Err)
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		return fmt.Errorf("unknown object member %.200q", string(semantic.JSONPointer))
	case errors.As(err, &semantic):
		where := "the document"
		if semantic.JSONPointer != "" {
			where = fmt.Sprintf("member %.200q", string(semantic.JSONPointer))
		}
		if semantic.Err != nil {
			return fmt.Errorf("%s: %v", where, semantic.Err)
		}
		return fmt.Errorf("%s can't be %s", where, kinds[semantic.JSONKind])
	}
	return err
}
