package provisioner

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// The messages of form fields, word for word as MAAS's clients know them.
const (
	msgRequired = "This field is required."
	msgInvalid  = "Enter a valid value."
	msgNoChoice = "Select a valid choice. That choice is not one of the available choices."
	msgIP       = "Enter a valid IPv4 or IPv6 address."
)

func msgChoice(v string) string {
	return "Select a valid choice. " + v + " is not one of the available choices."
}

// form collects what is wrong with the fields of a request.
type form map[string][]string

func (f form) add(field, text string, args ...any) {
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	f[field] = append(f[field], text)
}

// err is nil when nothing is wrong.
func (f form) err() error {
	if len(f) == 0 {
		return nil
	}
	return &Error{Kind: Invalid, Fields: f}
}

// fieldErr is the error of one field whose text holds what the caller sent.
func fieldErr(field, text string) error { return form{field: {text}}.err() }

// text checks a text field against a length and, when it is not empty, a pattern.
func (f form) text(field, value string, limit int, pattern *regexp.Regexp) {
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		f.add(field, msgInvalid)
		return
	}
	if n := utf8.RuneCountInString(value); n > limit {
		f.add(field, "Ensure this value has at most %d characters (it has %d).", limit, n)
	}
	if value != "" && pattern != nil && !pattern.MatchString(value) {
		f.add(field, msgInvalid)
	}
}

// descriptionLimit bounds free text. MAAS has no bound; one is needed against abuse.
const descriptionLimit = 65536

var (
	modelName = regexp.MustCompile(`^[\p{L}\p{N}_][\p{L}\p{N}_ -]*$`) // zones and pools
	netName   = regexp.MustCompile(`^[\p{L}\p{N}_ -]+$`)              // fabrics, spaces
	tagName   = regexp.MustCompile(`^[a-zA-Z0-9_-]+$`)
)

func noMatch(model string) *Error {
	return Errorf(NotFound, "No %s matches the given query.", model)
}

// found turns the store's "not found" into MAAS's text.
func found(model string, err error) error {
	if errors.Is(err, storage.ErrNotFound) {
		return noMatch(model)
	}
	return err
}

// taken turns the store's "conflict" into the field error of a unique field.
func taken(model, field, label string, err error) error {
	if errors.Is(err, storage.ErrConflict) {
		return FieldError(field, "%s with this %s already exists.", model, label)
	}
	return err
}

// needObjectAdmin is needAdmin for one object: MAAS's answer is 403 without a text.
func needObjectAdmin(ctx context.Context) (Actor, error) {
	a, err := needUser(ctx)
	if err == nil && !a.Can("can_edit_global_entities") {
		err = &Error{Kind: Forbidden}
	}
	return a, err
}

// splitList takes a list apart that came as repeated keys, commas or spaces, and drops what is empty or double.
func splitList(in []string) []string {
	out := []string{}
	for _, s := range in {
		for _, v := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
			if !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// idOrName says whether a path element names an object: by its id or its name.
func idOrName(spec string, id int64, name string) bool {
	return spec == strconv.FormatInt(id, 10) || spec == name
}

// findByIDOrName picks from a list; a number is an id before it is a name.
func findByIDOrName[T any](list []T, spec string, key func(T) (int64, string)) (T, bool) {
	var byName T
	ok := false
	for _, x := range list {
		id, name := key(x)
		if spec == strconv.FormatInt(id, 10) {
			return x, true
		}
		if spec == name {
			byName, ok = x, true
		}
	}
	return byName, ok
}

func deref[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}
