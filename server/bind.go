package server

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// binder fills the params struct of one operation. It looks at the struct once, at start-up.
type binder struct {
	op    *api.Operation
	steps []step
	input int // index of the embedded Input
	named map[string]bool
}

type step struct {
	p     api.Param
	index int
}

func newBinders() (paramBinder, error) {
	all := paramBinder{}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			call, ok := oapi.CallOf(op)
			if !ok {
				continue
			}
			t := reflect.TypeOf(call.New()).Elem()
			in, ok := t.FieldByName("Input")
			if !ok {
				return nil, fmt.Errorf("server: params of %s carry no Input", op.ID)
			}
			b := &binder{op: op, input: in.Index[0], named: map[string]bool{}}
			for _, p := range op.Params {
				b.named[p.Name] = true
				if p.In == api.Body {
					continue
				}
				f, ok := t.FieldByName(p.Field)
				if !ok {
					return nil, fmt.Errorf("server: params of %s lack %s", op.ID, p.Field)
				}
				b.steps = append(b.steps, step{p, f.Index[0]})
			}
			all[op.ID] = b
		}
	}
	return all, nil
}

// paramBinder is our echo.Binder: it binds what dispatch has read of the request, by the table of operations.
type paramBinder map[string]*binder

// Bind implements echo.Binder.
func (table paramBinder) Bind(into any, c echo.Context) error {
	q, ok := c.Get(requestKey).(*request)
	if !ok || q.operation == nil {
		return fmt.Errorf("server: nothing was dispatched to bind %T from", into)
	}
	b := table[q.operation.ID]
	v := reflect.ValueOf(into).Elem()
	in := v.Field(b.input).Addr().Interface().(*api.Input)
	if err := b.bind(v, in, q); err != nil {
		return err
	}
	if rawBody(q.operation.Handler, c.Request()) {
		in.Raw = c.Request().Body
	}
	return nil
}

func (b *binder) bind(v reflect.Value, in *api.Input, q *request) error {
	from := q.form
	if b.op.Method == "GET" || b.op.Method == "DELETE" {
		from = q.query
	}
	in.Files = q.files
	in.Sent, in.Extra = map[string][]string{}, map[string][]string{}
	fields := map[string][]string{}
	for _, k := range from.keys {
		if transport(k) {
			continue
		}
		vals := from.values[k]
		for _, x := range vals {
			if strings.ContainsRune(x, 0) || strings.ContainsRune(k, 0) {
				return provisioner.FieldError(strings.ReplaceAll(k, "\x00", "\uFFFD"), "Null characters are not allowed.")
			}
		}
		in.Keys = append(in.Keys, k)
		in.Sent[k] = vals
		if !b.named[k] {
			in.Extra[k] = vals
		}
	}
	for _, s := range b.steps {
		var vals []string
		switch s.p.In {
		case api.Path:
			vals = q.path[s.p.Name]
		case api.Query:
			vals = q.query.values[s.p.Name]
		case api.Form:
			vals = q.form.values[s.p.Name]
			if vals == nil && !s.p.Repeat {
				vals = fileText(q.files, s.p.Name)
			}
		case api.Upload:
			f := upload(q, s.p.Name)
			if f == nil && s.p.Required && !anyFile(b.op, q) {
				if err := b.missing(fields, s.p.Name); err != nil {
					return err
				}
			}
			if f != nil {
				v.Field(s.index).Set(reflect.ValueOf(f))
			}
			continue
		}
		if len(vals) == 0 || b.op.FieldErrors && s.p.Required && len(vals) == 1 && vals[0] == "" && s.p.In == api.Form && !s.p.CSV {
			if s.p.Required && s.p.In != api.Path {
				if err := b.missing(fields, s.p.Name); err != nil {
					return err
				}
			}
			continue
		}
		if problem := set(v.Field(s.index), s.p, vals); problem != "" {
			if !b.op.FieldErrors || s.p.In != api.Form || s.p.Kind == api.Bool {
				return badRequest("Invalid " + s.p.Name + ": " + problem)
			}
			fields[s.p.Name] = append(fields[s.p.Name], formProblem(s.p.Kind))
		}
	}
	if len(fields) > 0 {
		return &provisioner.Error{Kind: provisioner.Invalid, Fields: fields}
	}
	return nil
}

// missing notes an absent parameter: in fields where the operation answers field errors, else as the error itself.
func (b *binder) missing(fields map[string][]string, name string) error {
	for _, p := range b.op.Params {
		if p.Name == name && p.Missing != "" {
			return badRequest(p.Missing)
		}
	}
	if !b.op.FieldErrors {
		return badRequest("No provided " + name + "!")
	}
	fields[name] = append(fields[name], "This field is required.")
	return nil
}

// transport are keys that belong to the request, not to the operation.
func transport(k string) bool {
	return k == "op" || k == "format" || k == "callback" || k == "csrfmiddlewaretoken" || strings.HasPrefix(k, "oauth_")
}

// upload finds an uploaded file, or a plain field of the same name.
func upload(q *request, name string) *api.File {
	for i := range q.files {
		if q.files[i].Field == name {
			return &q.files[i]
		}
	}
	if v, ok := q.form.values[name]; ok {
		return &api.File{Field: name, Content: []byte(v[0])}
	}
	return nil
}

// anyFile lets scripts come under a field name that is the script's own: the one file that was sent stands for it.
func anyFile(op *api.Operation, q *request) bool {
	return len(q.files) == 1 && slices.ContainsFunc(op.Params, func(p api.Param) bool { return p.Name == "name" })
}

// fileText reads a form field that the client sent as a file, as some send every value.
func fileText(files []api.File, name string) []string {
	for _, f := range files {
		if f.Field == name {
			return []string{strings.ToValidUTF8(string(f.Content), "\uFFFD")}
		}
	}
	return nil
}

// set puts values into a field; it answers what is wrong with them in the words of the handlers that read values one by one.
func set(f reflect.Value, p api.Param, vals []string) (problem string) {
	if p.Repeat {
		list := []string{}
		for _, v := range vals {
			if !p.CSV {
				list = append(list, v)
				continue
			}
			list = append(list, strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })...)
		}
		f.Set(reflect.ValueOf(list))
		return ""
	}
	v := vals[0]
	if p.In == api.Form {
		v = vals[len(vals)-1] // Django forms read the last
	}
	if v == "" && (p.Kind == api.Int || p.Kind == api.Float || p.Kind == api.Bool) {
		if p.Required {
			return "Please enter a value"
		}
		return "" // the rules see a blank by Input.Blank
	}
	target := f
	if f.Kind() == reflect.Pointer {
		target = reflect.New(f.Type().Elem()).Elem()
	}
	switch p.Kind {
	case api.String:
		target.SetString(v)
	case api.Int:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil {
			return "Please enter an integer value"
		}
		target.SetInt(n)
	case api.Float:
		n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return "Please enter a number"
		}
		target.SetFloat(n)
	default:
		b, ok := boolWord(p.Kind, v)
		if !ok {
			if p.Kind == api.Bool01 {
				return "Value must be one of: 0; 1 (not '" + v + "')"
			}
			return "Value should be 'true' or 'false'"
		}
		target.SetBool(b)
	}
	if f.Kind() == reflect.Pointer {
		f.Set(target.Addr())
	}
	return ""
}

// formProblem is what Django's forms say of a value of the wrong kind.
func formProblem(k api.Kind) string {
	switch k {
	case api.Int:
		return "Enter a whole number."
	case api.Float:
		return "Enter a number."
	}
	return "Enter a valid value."
}

func boolWord(k api.Kind, v string) (value, ok bool) {
	switch k {
	case api.DjBool:
		return v != "" && v != "0" && v != "false" && v != "False", true
	case api.AnyBool:
		return v != "", true
	case api.SubnetBool:
		v = strings.ToLower(v)
		return v == "true" || v == "t" || v == "1", true
	case api.Bool01:
		return v == "1", v == "0" || v == "1"
	}
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "true", "t", "yes", "y", "on", "1":
		return true, true
	case "false", "f", "no", "n", "off", "0":
		return false, true
	}
	return false, false
}
