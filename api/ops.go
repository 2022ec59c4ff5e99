package api

import (
	"io"
	"net/url"
	"strings"
)

// Location says where a parameter travels.
type Location uint8

// The locations. Upload is a file part of a multipart body, or a plain field of the same name; Body is the raw request body.
const (
	Path Location = iota + 1
	Query
	Form
	Upload
	Body
)

// Kind is how a parameter's text is understood.
type Kind uint8

// The kinds. MAAS reads booleans in four dialects beside the strict one, see x-type in openapi/maas.yaml.
const (
	String Kind = iota + 1
	Int
	Float
	Bool       // true t yes y on 1, false f no n off 0, in any case; else an error
	DjBool     // "", 0, false and False are false, all else is true
	AnyBool    // any text but "" is true
	SubnetBool // true, t and 1 in any case are true, all else is false
	Bool01     // 0 or 1
	Binary
)

// Param is one parameter of an operation.
type Param struct {
	Name     string
	Field    string // its field in the operation's params struct
	In       Location
	Kind     Kind
	Repeat   bool // a list: the key may come several times
	CSV      bool // a list: commas and spaces separate too
	Required bool
	Slashes  bool   // a path parameter that may hold slashes
	Format   string // mac, ip, cidr, uuid, size, duration, byte and so on: what the text should look like
	Missing  string // what answers its absence when it is required; "": the usual text
	Default  string
	Choices  []string
	Doc      string
}

// Dynamic is a family of keys that an operation reads from Input.Extra.
type Dynamic struct {
	Name string // with its variable part in braces: power_parameters_{param}
	Doc  string
}

// Operation is one operation of an API. The table of all of them drives routing, binding, the SDK and the describe document.
type Operation struct {
	ID          string // machines.allocate
	Method      string
	Path        string   // the plain path without op, below the prefix of the document
	Aliases     []string // further paths of the same operation
	Op          string   // "" for plain create, read, update and delete
	Permission  string
	Title       string
	Doc         string
	Anon        bool // needs no login
	AnonOnly    bool // exists for callers without login only
	FieldErrors bool // missing parameters answer field errors instead of a text
	Deprecated  bool
	Gone        string // answered 410 with this text
	Status      int    // of success
	Returns     string // Go type of the result; "" nothing, "text" text/plain, "null" the JSON null
	Params      []Param
	Dynamic     []Dynamic

	Handler *Handler
}

// Action is the name by which describe and the command line know the operation.
func (o *Operation) Action() string {
	if o.Op != "" {
		return o.Op
	}
	return map[string]string{"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}[o.Method]
}

// Handler is what MAAS calls a handler: the operations of one path.
type Handler struct {
	Name        string // MachinesHandler; part of the contract with the command line
	Prefix      string // /MAAS/api/2.0
	Doc         string
	Hidden      bool     // left out of describe
	AnonMethods []string // verbs for which a caller without login gets the anonymous variant
	Ops         []*Operation
}

// Handlers are the handlers of every document, by name within their document. The slice is shared: do not change it.
var Handlers = link(handlersNodes, handlersNetwork, handlersStorage, handlersImages, handlersIdentity, handlersSite, handlersGone, handlersIngot)

// operations is Handlers by operation id.
var operations = func() map[string]*Operation {
	m := map[string]*Operation{}
	for _, h := range Handlers {
		for _, o := range h.Ops {
			m[o.ID] = o
		}
	}
	return m
}()

func link(groups ...[]*Handler) []*Handler {
	var all []*Handler
	for _, g := range groups {
		for _, h := range g {
			for _, o := range h.Ops {
				o.Handler = h
			}
			all = append(all, h)
		}
	}
	return all
}

// Lookup finds an operation by its id; nil when there is none.
func Lookup(id string) *Operation { return operations[id] }

// PathParams are the names in braces of a path, in order.
func PathParams(path string) []string {
	var names []string
	for {
		_, rest, ok := strings.Cut(path, "{")
		if !ok {
			return names
		}
		name, tail, _ := strings.Cut(rest, "}")
		names, path = append(names, name), tail
	}
}

// File is an uploaded file.
type File struct {
	Field       string // the name of its form field
	Name        string // as the client called it; "" for a plain field
	ContentType string
	Content     []byte
}

// Input is what every params struct carries beside its own fields.
type Input struct {
	// Extra holds the keys that the operation does not name: dynamic families, and what list filters must refuse.
	Extra url.Values
	// Sent holds every key of the query (GET, DELETE) or of the body (POST, PUT) as it came. A PUT tells "absent" from "" by it.
	Sent  url.Values
	Keys  []string // the keys of Sent in the order they first came
	Files []File
	Raw   io.Reader // the body of operations that take it raw
}

// Has says whether the caller sent the key at all.
func (in *Input) Has(key string) bool { _, ok := in.Sent[key]; return ok }

// Blank says whether the caller sent the key with an empty value: the way to clear a field.
func (in *Input) Blank(key string) bool {
	v, ok := in.Sent[key]
	return ok && (len(v) == 0 || v[0] == "")
}
