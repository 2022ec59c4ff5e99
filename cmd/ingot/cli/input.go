package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// values is a parameter's flag: each use adds a text.
type values struct {
	param api.Param
	list  []string
}

func newValues(p api.Param) *values { return &values{param: p} }

// String implements pflag.Value.
func (v *values) String() string { return "" }

// Set implements pflag.Value.
func (v *values) Set(s string) error {
	if len(v.list) > 0 && !v.param.Repeat {
		return errors.New("given twice, and it is no list")
	}
	v.list = append(v.list, s)
	return nil
}

// Type implements pflag.Value: what help shows behind the flag.
func (v *values) Type() string {
	t := "text"
	switch {
	case isBool(v.param):
		return "bool"
	case v.param.In == api.Upload || v.param.In == api.Body:
		return "@file"
	case v.param.Kind == api.Int:
		t = "number"
	case v.param.Kind == api.Float:
		t = "decimal"
	case v.param.Format != "" && v.param.Format != "byte":
		t = v.param.Format
	}
	if v.param.Repeat {
		t += "..."
	}
	return t
}

// input gathers what a command line gives an operation.
type input struct {
	op      *api.Operation
	params  map[string]api.Param
	stdin   io.Reader
	read    bool // the standard input was taken already
	request client.Request
	upload  *os.File // content of boot-resources create
}

func newInput(op *api.Operation, stdin io.Reader) *input {
	in := &input{op: op, stdin: stdin, params: map[string]api.Param{}, request: client.Request{Path: map[string]string{}, Query: url.Values{}, Form: url.Values{}}}
	for _, p := range op.Params {
		in.params[p.Name] = p
	}
	return in
}

// positionals takes the values of the path's parameters off the arguments. Of several paths their number decides.
func (in *input) positionals(args *[]string) error {
	leading := 0
	for leading < len(*args) && !strings.Contains((*args)[leading], "=") {
		leading++
	}
	names := api.PathParams(in.op.Path)
	for _, alias := range in.op.Aliases {
		if p := api.PathParams(alias); len(p) == leading {
			names = p
		}
	}
	if len(api.PathParams(in.op.Path)) == leading {
		names = api.PathParams(in.op.Path)
	}
	for i, name := range names {
		before, _, pair := "", "", false
		if i < len(*args) {
			before, _, pair = strings.Cut((*args)[i], "=")
		}
		if _, isParam := in.params[strings.TrimSuffix(before, "@")]; i >= len(*args) || pair && isParam {
			return fmt.Errorf("%s is missing", strings.ToUpper(name))
		}
		v := (*args)[i]
		if v == "" {
			return fmt.Errorf("%s is empty", strings.ToUpper(name))
		}
		in.request.Path[name] = v
	}
	*args = (*args)[len(names):]
	return nil
}

// pair takes NAME=VALUE, and NAME@=FILE as MAAS's command line has it.
func (in *input) pair(arg string) error {
	name, value, ok := strings.Cut(arg, "=")
	if !ok || name == "" || name == "@" {
		return fmt.Errorf("%q is not NAME=VALUE", arg)
	}
	if n, ok := strings.CutSuffix(name, "@"); ok {
		name, value = n, "@"+value
	}
	return in.set(name, value)
}

// set adds a value of a parameter.
func (in *input) set(name, value string) error {
	p, known := in.params[name]
	if file, ok := strings.CutPrefix(value, "@"); ok && !strings.HasPrefix(file, "@") {
		if name == "content" && in.op.ID == "boot_resources.create" && file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return err
			}
			in.upload = f
			return nil
		}
		content, err := in.file(file)
		if err != nil {
			return err
		}
		switch {
		case known && p.In == api.Upload:
			in.request.Files = append(in.request.Files, api.File{Field: name, Name: filepath.Base(file), Content: content})
			return nil
		case known && p.In == api.Body:
			in.request.Body = strings.NewReader(string(content))
			return nil
		case p.Format == "byte":
			value = base64.StdEncoding.EncodeToString(content)
		default:
			value = string(content)
		}
	} else if ok {
		value = file
	}
	switch {
	case known && p.In == api.Upload:
		in.request.Files = append(in.request.Files, api.File{Field: name, Name: name, Content: []byte(value)})
	case known && p.In == api.Body:
		in.request.Body = strings.NewReader(value)
	case known && p.In == api.Path:
		return fmt.Errorf("%s stands before the parameters, without its name", name)
	case known && p.In == api.Query || !known && !sends(in.op):
		in.request.Query.Add(name, value)
	default:
		in.request.Form.Add(name, value)
	}
	return nil
}

// file reads a file, or the standard input when it is -.
func (in *input) file(name string) ([]byte, error) {
	if name != "-" {
		return os.ReadFile(name)
	}
	if in.read {
		return nil, errors.New("the standard input can be taken once only")
	}
	in.read = true
	return io.ReadAll(in.stdin)
}
