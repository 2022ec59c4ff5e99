package power

import (
	"context"
	"errors"
	"strings"
)

// ErrKind says what went wrong with a BMC, and so whether trying again can help.
type ErrKind int

// The kinds. Auth, Setting and Tool are final: the same call would fail again.
const (
	ErrOther   ErrKind = iota // anything else between us and the BMC
	ErrAuth                   // the BMC refused the user, the password or the privilege
	ErrConn                   // no answer, or no way to it
	ErrSetting                // a power parameter is missing or wrong
	ErrTool                   // something that the driver needs is not there
	ErrAction                 // the BMC answered, and the action did not succeed
)

var prefixes = map[ErrKind]string{
	ErrOther:   "Failed talking to node's BMC: ",
	ErrAuth:    "Could not authenticate to node's BMC: ",
	ErrConn:    "Could not contact node's BMC: ",
	ErrSetting: "Missing or invalid power setting: ",
	ErrTool:    "Missing power tool: ",
	ErrAction:  "Failed to complete power action: ",
}

// Error is a failure of a power action. Its text begins with the prefix of its kind, as MAAS words it, and holds no secret.
type Error struct {
	Kind ErrKind
	Text string
	Err  error // the cause, for errors.Is; its text is not shown
}

func (e *Error) Error() string { return prefixes[e.Kind] + e.Text }

func (e *Error) Unwrap() error { return e.Err }

// Fatal reports that trying again cannot help.
func (e *Error) Fatal() bool { return e.Kind == ErrAuth || e.Kind == ErrSetting || e.Kind == ErrTool }

// AsError turns any error of a driver into an *Error and removes the values of the secret parameters from its text: drivers
// wrap libraries whose errors quote their input.
func AsError(err error, t Type, p Params) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		kind := ErrOther
		if errors.Is(err, context.DeadlineExceeded) {
			kind = ErrConn
		}
		e = &Error{Kind: kind, Text: err.Error(), Err: err}
	}
	clean := *e
	for _, f := range t.Fields {
		if v := p[f.Name]; f.Secret && v != "" {
			clean.Text = strings.ReplaceAll(clean.Text, v, "********")
		}
	}
	return &clean
}

// Missing returns the error of the first required field without a value, or nil.
func Missing(t Type, p Params) error {
	for _, f := range t.Fields {
		if f.Required && p[f.Name] == "" && f.Default == "" {
			return &Error{Kind: ErrSetting, Text: f.Name + " is required by the " + t.Name + " driver"}
		}
	}
	return nil
}

// WithDefaults returns p with the defaults of t where p has no value.
func WithDefaults(t Type, p Params) Params {
	out := make(Params, len(p)+len(t.Fields))
	for _, f := range t.Fields {
		if f.Default != "" {
			out[f.Name] = f.Default
		}
	}
	for k, v := range p {
		if _, ok := out[k]; ok && v == "" && !hasEmptyChoice(t, k) {
			continue
		}
		out[k] = v
	}
	return out
}

func hasEmptyChoice(t Type, name string) bool {
	for _, f := range t.Fields {
		if f.Name == name {
			for _, c := range f.Choices {
				if c[0] == "" {
					return true
				}
			}
		}
	}
	return false
}
