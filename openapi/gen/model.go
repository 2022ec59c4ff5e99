package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"go.yaml.in/yaml/v3"
)

// model is what the templates see.
type model struct {
	Types  []*typ
	Groups []*group

	goNames map[string]string // schema name to Go type
}

type typ struct {
	Name, Doc string
	Extra     bool // keeps keys that the document does not name
	Fields    []fld
}

type fld struct{ Name, JSON, Type, Tag, Doc string }

type group struct {
	Name     string
	Handlers []*handler
}

type handler struct {
	Name, Prefix, Doc, Tag string
	Hidden                 bool
	Gone                   string
	AnonMethods            []string
	Ops                    []*op
}

type op struct {
	ID, Method, Path, Op, Permission, Title, Doc, Gone, Returns, GoName string
	Aliases                                                             []string
	Anon, AnonOnly, FieldErrors, Deprecated                             bool
	Status                                                              int
	Params                                                              []param
	Dynamic                                                             []dynamic
}

type param struct {
	Name, Field, GoType, In, Kind, Format, Missing, Default, Doc string
	Repeat, CSV, Required, Slashes                               bool
	Choices                                                      []string
}

type dynamic struct {
	Name string `json:"name"`
	Doc  string `json:"description"`
}

func (m *model) add(file string, b []byte) error {
	loader := openapi3.NewLoader()
	doc, err := loader.LoadFromData(b)
	if err != nil {
		return err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b, &root); err != nil {
		return err
	}
	order := orderer{root.Content[0]}
	if m.goNames == nil {
		m.goNames = map[string]string{}
	}
	for _, name := range order.keys("components", "schemas") {
		ref := doc.Components.Schemas[name]
		goName := name
		if s, ok := ref.Value.Extensions["x-go-name"].(string); ok {
			goName = s
		}
		switch {
		case len(ref.Value.AnyOf) > 0:
			goName = "any"
		case !ref.Value.Type.Is("object") || len(ref.Value.Properties) == 0:
			t, err := m.goType(ref.Value)
			if err != nil {
				return fmt.Errorf("schema %s: %w", name, err)
			}
			goName = t
		}
		m.goNames[name] = goName
	}
	for _, name := range order.keys("components", "schemas") {
		s := doc.Components.Schemas[name].Value
		if len(s.AnyOf) > 0 || !s.Type.Is("object") || len(s.Properties) == 0 {
			continue
		}
		t := &typ{Name: m.goNames[name], Doc: s.Description, Extra: boolExt(s.Extensions, "x-go-extra")}
		for _, p := range order.keys("components", "schemas", name, "properties") {
			f, err := m.field(p, s.Properties[p], slices.Contains(s.Required, p))
			if err != nil {
				return fmt.Errorf("schema %s: %s: %w", name, p, err)
			}
			t.Fields = append(t.Fields, f)
		}
		m.Types = append(m.Types, t)
	}
	return m.operations(doc, order)
}

func (m *model) field(name string, ref *openapi3.SchemaRef, required bool) (fld, error) {
	t, err := m.refType(ref)
	if err != nil {
		return fld{}, err
	}
	f := fld{Name: field(name), JSON: name, Type: t, Tag: name, Doc: ref.Value.Description}
	if ref.Ref != "" {
		f.Doc = ""
	}
	if n, ok := ref.Value.Extensions["x-go-name"].(string); ok && ref.Ref == "" {
		f.Name = n
	}
	if ref.Value.Nullable && ref.Ref == "" || !required {
		switch {
		case t == "any":
		case strings.HasPrefix(t, "map[") && ref.Value.Nullable:
			f.Type = "any"
		case strings.HasPrefix(t, "map["):
		default:
			f.Type = "*" + t
		}
	}
	if !required {
		f.Tag += ",omitempty"
	}
	return f, nil
}

func (m *model) refType(ref *openapi3.SchemaRef) (string, error) {
	if ref.Ref != "" {
		name := strings.TrimPrefix(ref.Ref, "#/components/schemas/")
		if t, ok := m.goNames[name]; ok {
			return t, nil
		}
		return "", fmt.Errorf("unknown schema %s", ref.Ref)
	}
	return m.goType(ref.Value)
}

// goType is the Go type of a schema, its nullability aside.
func (m *model) goType(s *openapi3.Schema) (string, error) {
	if t, ok := s.Extensions["x-go-type"].(string); ok {
		return t, nil
	}
	switch {
	case len(s.AllOf) == 1:
		return m.refType(s.AllOf[0])
	case len(s.AllOf) > 1 || len(s.OneOf) > 0:
		return "", errors.New("allOf of several and oneOf are not understood")
	case len(s.AnyOf) > 0 || s.Type == nil:
		return "any", nil
	case s.Type.Is("array"):
		t, err := m.refType(s.Items)
		return "[]" + t, err
	case s.Type.Is("object"):
		if a := s.AdditionalProperties.Schema; a != nil {
			t, err := m.refType(a)
			return "map[string]" + t, err
		}
		return "map[string]any", nil
	case s.Type.Is("integer"):
		return "int64", nil
	case s.Type.Is("number"):
		return "float64", nil
	case s.Type.Is("boolean"):
		return "bool", nil
	case s.Type.Is("string"):
		switch s.Format {
		case "maas-model-time":
			return "ModelTime", nil
		case "maas-mail-time":
			return "MailTime", nil
		case "maas-log-time":
			return "LogTime", nil
		case "byte", "binary":
			return "[]byte", nil
		}
		return "string", nil
	}
	return "", fmt.Errorf("type %v is not understood", s.Type)
}

func (m *model) operations(doc *openapi3.T, order orderer) error {
	prefix := doc.Servers[0].URL
	byTag := map[string]*handler{}
	for _, t := range doc.Tags {
		name, _ := t.Extensions["x-handler"].(string)
		g, _ := t.Extensions["x-group"].(string)
		if name == "" || g == "" {
			return fmt.Errorf("tag %s lacks x-handler or x-group", t.Name)
		}
		h := &handler{Name: name, Prefix: prefix, Doc: t.Description, Tag: t.Name, Hidden: boolExt(t.Extensions, "x-hidden")}
		h.Gone, _ = t.Extensions["x-gone"].(string)
		if err := decodeExt(t.Extensions, "x-anon-methods", &h.AnonMethods); err != nil {
			return err
		}
		byTag[t.Name] = h
		i := slices.IndexFunc(m.Groups, func(x *group) bool { return x.Name == g })
		if i < 0 {
			m.Groups = append(m.Groups, &group{Name: g})
			i = len(m.Groups) - 1
		}
		m.Groups[i].Handlers = append(m.Groups[i].Handlers, h)
	}
	same := map[string]*op{}
	var aliases []func() error
	for _, path := range order.keys("paths") {
		item := doc.Paths.Value(path)
		for _, method := range order.keys("paths", path) {
			method := strings.ToUpper(method)
			d := item.GetOperation(method)
			if d == nil {
				return fmt.Errorf("%s: %s is not a method", path, method)
			}
			base, name := splitOp(doc, path)
			if of, ok := d.Extensions["x-same-as"].(string); ok {
				aliases = append(aliases, func() error { return alias(same, of, base, d, m, order, path, method) })
				continue
			}
			if len(d.Tags) != 1 || byTag[d.Tags[0]] == nil {
				return fmt.Errorf("%s %s: needs exactly one declared tag", method, path)
			}
			h := byTag[d.Tags[0]]
			o := &op{ID: d.OperationID, Method: method, Path: base, Op: name, Title: d.Summary, Doc: d.Description, Deprecated: d.Deprecated, GoName: camel(d.OperationID)}
			o.Permission, _ = d.Extensions["x-permission"].(string)
			o.Gone, _ = d.Extensions["x-gone"].(string)
			anon, _ := d.Extensions["x-anon"].(string)
			o.Anon, o.AnonOnly = anon != "", anon == "only"
			if err := m.params(o, d, order, path, method); err != nil {
				return fmt.Errorf("%s: %w", o.ID, err)
			}
			if err := m.returns(o, d); err != nil {
				return fmt.Errorf("%s: %w", o.ID, err)
			}
			if same[o.ID] != nil {
				return fmt.Errorf("operation %s comes twice", o.ID)
			}
			same[o.ID] = o
			h.Ops = append(h.Ops, o)
		}
	}
	for _, f := range aliases {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// alias adds a second path to an operation. Path parameters that not all of its paths have become optional.
func alias(ops map[string]*op, of, base string, d *openapi3.Operation, m *model, order orderer, path, method string) error {
	o := ops[of]
	if o == nil {
		return fmt.Errorf("%s: x-same-as names no operation", d.OperationID)
	}
	other := &op{}
	if err := m.params(other, d, order, path, method); err != nil {
		return err
	}
	o.Aliases = append(o.Aliases, base)
	for i, p := range o.Params {
		if p.In == "Path" && !slices.ContainsFunc(other.Params, func(q param) bool { return q.In == "Path" && q.Name == p.Name }) {
			o.Params[i] = optional(p)
		}
	}
	for _, q := range other.Params {
		if q.In == "Path" && !slices.ContainsFunc(o.Params, func(p param) bool { return p.In == "Path" && p.Name == q.Name }) {
			o.Params = slices.Insert(o.Params, 0, optional(q))
		}
	}
	return nil
}

func optional(p param) param {
	p.Required = false
	if !strings.HasPrefix(p.GoType, "*") {
		p.GoType = "*" + p.GoType
	}
	return p
}

// splitOp takes /machines/op-allocate apart. Where the plain path has no end slash, the document still writes one before op-.
func splitOp(doc *openapi3.T, path string) (base, name string) {
	i := strings.LastIndex(path, "/op-")
	if i < 0 {
		return path, ""
	}
	base, name = path[:i+1], path[i+4:]
	if doc.Paths.Value(base) == nil && doc.Paths.Value(path[:i]) != nil {
		base = path[:i]
	}
	return base, name
}

func (m *model) params(o *op, d *openapi3.Operation, order orderer, path, method string) error {
	add := func(p param) error {
		if slices.ContainsFunc(o.Params, func(q param) bool { return q.Field == p.Field }) {
			if p.In == "Path" {
				return fmt.Errorf("parameter %s comes twice", p.Name)
			}
			p.Field = "New" + p.Field // a form may change the very name that the path goes by
		}
		o.Params = append(o.Params, p)
		return nil
	}
	for _, ref := range d.Parameters {
		p := ref.Value
		x, err := m.param(p.Name, p.Schema.Value, p.Required)
		if err != nil {
			return err
		}
		x.In, x.Doc, x.Slashes = strings.ToUpper(p.In[:1])+p.In[1:], p.Description, boolExt(p.Extensions, "x-slashes")
		if err := add(x); err != nil {
			return err
		}
	}
	if d.RequestBody == nil {
		return nil
	}
	content := d.RequestBody.Value.Content
	if content["application/octet-stream"] != nil {
		o.Params = append(o.Params, param{Name: "chunk", Field: "Raw", In: "Body", Kind: "Binary", Required: true, Doc: "Raw bytes"})
		return nil
	}
	kind := "application/x-www-form-urlencoded"
	if content[kind] == nil {
		kind = "multipart/form-data"
	}
	s := content[kind].Schema.Value
	errs, _ := s.Extensions["x-errors"].(string)
	o.FieldErrors = errs == "fields"
	if err := decodeExt(s.Extensions, "x-dynamic", &o.Dynamic); err != nil {
		return err
	}
	for _, name := range order.keys("paths", path, strings.ToLower(method), "requestBody", "content", kind, "schema", "properties") {
		p := s.Properties[name].Value
		x, err := m.param(name, p, slices.Contains(s.Required, name))
		if err != nil {
			return err
		}
		x.In, x.Doc = "Form", p.Description
		if x.Kind == "Binary" {
			x.In, x.GoType = "Upload", "*File"
		}
		if err := add(x); err != nil {
			return err
		}
	}
	return nil
}

func (m *model) param(name string, s *openapi3.Schema, required bool) (param, error) {
	p := param{Name: name, Field: field(name), Required: required}
	e := s
	if s.Type.Is("array") {
		e, p.Repeat = s.Items.Value, true
		p.CSV = s.Extensions["x-type"] == "csv"
	}
	switch {
	case e.Type.Is("integer"):
		p.Kind, p.GoType = "Int", "int64"
	case e.Type.Is("number"):
		p.Kind, p.GoType = "Float", "float64"
	case e.Type.Is("boolean"):
		p.Kind, p.GoType = "Bool", "bool"
		if t, ok := e.Extensions["x-type"].(string); ok {
			k, ok := map[string]string{"djbool": "DjBool", "anybool": "AnyBool", "subnetbool": "SubnetBool", "bool01": "Bool01"}[t]
			if !ok {
				return p, fmt.Errorf("%s: unknown x-type %s", name, t)
			}
			p.Kind = k
		}
	case e.Type.Is("string") && e.Format == "binary":
		p.Kind, p.GoType = "Binary", "*File"
	case e.Type.Is("string"):
		p.Kind, p.GoType, p.Format = "String", "string", e.Format
	default:
		return p, fmt.Errorf("%s: type %v is no parameter's", name, e.Type)
	}
	switch {
	case p.Repeat:
		// Lists stay text: what is wrong in one element is for the rules to say, in MAAS's words.
		p.Kind, p.GoType = "String", "[]string"
	case !required && p.Kind != "Binary":
		p.GoType = "*" + p.GoType
	}
	p.Missing, _ = s.Extensions["x-missing"].(string)
	if e.Default != nil {
		p.Default = fmt.Sprint(e.Default)
	}
	var choices []any
	if err := decodeExt(e.Extensions, "x-choices", &choices); err != nil {
		return p, err
	}
	for _, c := range choices {
		p.Choices = append(p.Choices, fmt.Sprint(c))
	}
	return p, nil
}

func (m *model) returns(o *op, d *openapi3.Operation) error {
	for code, ref := range d.Responses.Map() {
		var status int
		if _, err := fmt.Sscan(code, &status); err != nil || status >= 300 && status != 410 || status == 410 && o.Gone == "" {
			continue
		}
		o.Status = status
		for kind, media := range ref.Value.Content {
			switch kind {
			case "text/plain":
				o.Returns = "text"
			case "application/json":
				if s := media.Schema.Value; s.Nullable && s.MaxProps != nil && *s.MaxProps == 0 { // an enum of null alone crashes generators
					o.Returns = "null"
					continue
				}
				t, err := m.refType(media.Schema)
				if err != nil {
					return err
				}
				if media.Schema.Value.Nullable && media.Schema.Ref == "" && t != "any" {
					t = "*" + t
				}
				o.Returns = t
			default:
				o.Returns = "[]byte"
			}
		}
		return nil
	}
	return errors.New("no response of success")
}

func (m *model) finish() error {
	sort.Slice(m.Types, func(i, j int) bool { return m.Types[i].Name < m.Types[j].Name })
	sort.Slice(m.Groups, func(i, j int) bool { return m.Groups[i].Name < m.Groups[j].Name })
	seen := map[string]string{}
	for _, g := range m.Groups {
		sort.SliceStable(g.Handlers, func(i, j int) bool { return g.Handlers[i].Name < g.Handlers[j].Name })
		for _, h := range g.Handlers {
			if len(h.Ops) == 0 {
				return fmt.Errorf("tag %s has no operation", h.Tag)
			}
			for _, o := range h.Ops {
				if seen[o.GoName] != "" {
					return fmt.Errorf("%s and %s are both %s", o.ID, seen[o.GoName], o.GoName)
				}
				seen[o.GoName] = o.ID
			}
		}
	}
	return nil
}

// Ops are the operations that somebody has to carry out: all that are not gone.
func (g *group) Ops() []*op {
	var ops []*op
	for _, h := range g.Handlers {
		for _, o := range h.Ops {
			if o.Gone == "" {
				ops = append(ops, o)
			}
		}
	}
	return ops
}

// SDKType is the type as api/client writes it.
func (o *op) SDKType() string {
	t := o.Returns
	switch t {
	case "text":
		return "string"
	}
	i := strings.LastIndexAny(t, "]*") + 1
	if t[i:] != "" && strings.ToUpper(t[i:i+1]) == t[i:i+1] {
		return t[:i] + "api." + t[i:]
	}
	return t
}

// orderer recalls the order in which the document writes the keys of an object; maps forget it.
type orderer struct{ root *yaml.Node }

func (o orderer) keys(path ...string) []string {
	n := o.root
	for _, p := range path {
		if n = child(n, p); n == nil {
			return nil
		}
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	var keys []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		keys = append(keys, n.Content[i].Value)
	}
	return keys
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func boolExt(ext map[string]any, key string) bool { b, _ := ext[key].(bool); return b }

func decodeExt(ext map[string]any, key string, into any) error {
	v, ok := ext[key]
	if !ok {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}
