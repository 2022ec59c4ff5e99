package provisioner

import "fmt"

// Kind classifies an error for the wire; server/errors.go turns each into MAAS's status, content type and text.
type Kind int

// The kinds, with the HTTP status that MAAS gives them.
const (
	Invalid      Kind = iota + 1 // 400, JSON of field errors, or text when Fields is empty
	Unauthorized                 // 401
	Forbidden                    // 403
	NotFound                     // 404
	Conflict                     // 409: wrong state, nothing to allocate
	Gone                         // 410
	Unbuilt                      // 501: openapi/divergences.md lists the operation
	Unavailable                  // 503: addresses exhausted, rack or BMC failed
	Timeout                      // 504
)

// Error is what the rules answer when a request cannot be done. Text reaches the user: a sentence that says what was wrong and
// what to do, or the exact text that MAAS's clients match on. It holds no secret.
type Error struct {
	Kind   Kind
	Text   string
	Fields map[string][]string // for Invalid: field name to messages; "__all__" for the whole form
	Err    error               // the cause, for the log only
}

func (e *Error) Error() string {
	if e.Text == "" && len(e.Fields) > 0 {
		return fmt.Sprintf("invalid: %v", e.Fields)
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error of a kind with a text for the user.
func Errorf(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// FieldError makes the Invalid error of one form field.
func FieldError(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Fields: map[string][]string{field: {fmt.Sprintf(format, args...)}}}
}
