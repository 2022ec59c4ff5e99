package server

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
)

// bindRequest reads and binds one request as dispatch does.
func bindRequest(t testing.TB, id, query, contentType, body string, path url.Values) (any, error) {
	t.Helper()
	op := api.Lookup(id)
	if op == nil {
		t.Fatalf("no operation %s", id)
	}
	req := httptest.NewRequest(op.Method, "/x", strings.NewReader(body))
	req.URL.RawQuery = query
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	q := &request{path: path, query: parsePairs(query), operation: op}
	if !rawBody(op.Handler, req) {
		if err := q.readBody(req, 1<<20); err != nil {
			return nil, err
		}
	}
	c := echo.New().NewContext(req, httptest.NewRecorder())
	c.Set(requestKey, q)
	call, ok := oapi.CallOf(op)
	if !ok {
		t.Fatalf("%s has no call", id)
	}
	params := call.New()
	return params, table(t).Bind(params, c)
}

var binders paramBinder

func table(t testing.TB) paramBinder {
	if binders == nil {
		var err error
		if binders, err = newBinders(); err != nil {
			t.Fatal(err)
		}
	}
	return binders
}

func ptr[T any](v T) *T { return &v }

const urlencoded = "application/x-www-form-urlencoded"

func TestBind(t *testing.T) {
	machine := url.Values{"system_id": {"abc123"}}
	for name, c := range map[string]struct {
		id, query, kind, body string
		path                  url.Values
		field                 string
		want                  any
	}{
		"boundary without quotes": {id: "machine.deploy", kind: "multipart/form-data; boundary====1==", path: machine, field: "Comment", want: ptr("hi"),
			body: "--===1==\r\nContent-Disposition: form-data; name=\"comment\"\r\n\r\nhi\r\n--===1==--"},
		"path":                    {id: "machine.read", path: machine, field: "SystemID", want: "abc123"},
		"text":                    {id: "machine.deploy", kind: urlencoded, body: "comment=a+b%26c", path: machine, field: "Comment", want: ptr("a b&c")},
		"absent text":             {id: "machine.deploy", kind: urlencoded, path: machine, field: "Comment", want: (*string)(nil)},
		"blank text":              {id: "machine.deploy", kind: urlencoded, body: "comment=", path: machine, field: "Comment", want: ptr("")},
		"broken escape stays":     {id: "machine.deploy", kind: urlencoded, body: "comment=100%+%zz%41", path: machine, field: "Comment", want: ptr("100% %zzA")},
		"no UTF-8":                {id: "machine.deploy", kind: urlencoded, body: "comment=%ff", path: machine, field: "Comment", want: ptr("\uFFFD")},
		"charset parameter":       {id: "machine.deploy", kind: urlencoded + "; charset=utf-8", body: "comment=x", path: machine, field: "Comment", want: ptr("x")},
		"other type is ignored":   {id: "machine.deploy", kind: "text/plain", body: "comment=x", path: machine, field: "Comment", want: (*string)(nil)},
		"query of POST is not it": {id: "machine.deploy", query: "comment=x", kind: urlencoded, path: machine, field: "Comment", want: (*string)(nil)},
		"bool":                    {id: "machine.deploy", kind: urlencoded, body: "bridge_all=On", path: machine, field: "BridgeAll", want: ptr(true)},
		"bool False":              {id: "machine.deploy", kind: urlencoded, body: "bridge_all=False", path: machine, field: "BridgeAll", want: ptr(false)},
		"bool blank":              {id: "machine.deploy", kind: urlencoded, body: "bridge_all=", path: machine, field: "BridgeAll", want: (*bool)(nil)},
		"djbool word":             {id: "machine.release", kind: urlencoded, body: "erase=no", path: machine, field: "Erase", want: ptr(true)},
		"djbool false":            {id: "machine.release", kind: urlencoded, body: "erase=false", path: machine, field: "Erase", want: ptr(false)},
		"int":                     {id: "machine.update", kind: urlencoded, body: "cpu_count=+8", path: machine, field: "CPUCount", want: ptr(int64(8))},
		"int blank":               {id: "machine.update", kind: urlencoded, body: "cpu_count=", path: machine, field: "CPUCount", want: (*int64)(nil)},
		"last of several":         {id: "machine.update", kind: urlencoded, body: "zone=a&zone=b", path: machine, field: "Zone", want: ptr("b")},
		"repeated":                {id: "machines.accept", kind: urlencoded, body: "machines=a&machines=b,c", field: "Machines", want: []string{"a", "b,c"}},
		"csv":                     {id: "machines.allocate", kind: urlencoded, body: "tags=fast,+stable+cute&tags=x", field: "Tags", want: []string{"fast", "stable", "cute", "x"}},
		"csv blank":               {id: "machines.allocate", kind: urlencoded, body: "tags=", field: "Tags", want: []string{}},
		"csv absent":              {id: "machines.allocate", kind: urlencoded, field: "Tags", want: []string(nil)},
		"floats stay text":        {id: "machines.allocate", kind: urlencoded, body: "cpu_count=plenty", field: "CPUCount", want: []string{"plenty"}},
		"query list":              {id: "machines.list", query: "id=A&id=B", field: "ID", want: []string{"A", "B"}},
		"odd key":                 {id: "machines.allocate", kind: urlencoded, body: "tags[0=a&=&&x", field: "Tags", want: []string(nil)},
		"JSON":                    {id: "machine.deploy", kind: "application/json", body: `{"comment":"c","bridge_fd":15,"bridge_all":true,"x":null}`, path: machine, field: "BridgeFd", want: ptr(int64(15))},
		"JSON bool":               {id: "machine.deploy", kind: "application/json", body: `{"bridge_all":true}`, path: machine, field: "BridgeAll", want: ptr(true)},
		"JSON list":               {id: "machines.accept", kind: "application/json", body: `{"machines":["a","b"]}`, field: "Machines", want: []string{"a", "b"}},
		"JSON empty":              {id: "machines.accept", kind: "application/json", field: "Machines", want: []string(nil)},
		"JSON null":               {id: "machine.deploy", kind: "application/json", body: `{"comment":null}`, path: machine, field: "Comment", want: (*string)(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := bindRequest(t, c.id, c.query, c.kind, c.body, c.path)
			if err != nil {
				t.Fatal(err)
			}
			if got := reflect.ValueOf(p).Elem().FieldByName(c.field).Interface(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s is %#v, want %#v", c.field, got, c.want)
			}
		})
	}
}

func TestBindRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		id, query, kind, body string
		status                int
		text                  string
	}{
		"missing":            {id: "account.delete_token", kind: urlencoded, status: 400, text: "No provided token_key!"},
		"missing in query":   {id: "machines.is_registered", status: 400, text: "No provided mac_address!"},
		"missing field":      {id: "ssh_keys.create", kind: urlencoded, status: 400, text: `{"key":["This field is required."]}`},
		"blank field":        {id: "ssh_keys.create", kind: urlencoded, body: "key=", status: 400, text: `{"key":["This field is required."]}`},
		"bool":               {id: "machine.deploy", kind: urlencoded, body: "bridge_all=perhaps", status: 400, text: "Invalid bridge_all: Value should be 'true' or 'false'"},
		"int of a form":      {id: "machine.update", kind: urlencoded, body: "cpu_count=many", status: 400, text: `{"cpu_count":["Enter a whole number."]}`},
		"int too large":      {id: "machine.update", kind: urlencoded, body: "cpu_count=99999999999999999999", status: 400, text: `{"cpu_count":["Enter a whole number."]}`},
		"int of a query":     {id: "events.query", query: "limit=x", status: 400, text: "Invalid limit: Please enter an integer value"},
		"NUL":                {id: "machine.deploy", kind: urlencoded, body: "comment=a%00", status: 400, text: `{"comment":["Null characters are not allowed."]}`},
		"NUL in a key":       {id: "machine.deploy", kind: urlencoded, body: "a%00=b", status: 400, text: "{\"a\uFFFD\":[\"Null characters are not allowed.\"]}"},
		"broken JSON":        {id: "machine.deploy", kind: "application/json", body: `{"a":`, status: 400, text: "Bad Request"},
		"JSON list":          {id: "machine.deploy", kind: "application/json", body: `[]`, status: 400, text: "Bad Request"},
		"JSON and more":      {id: "machine.deploy", kind: "application/json", body: `{} {}`, status: 400, text: "Bad Request"},
		"deep JSON":          {id: "machine.deploy", kind: "application/json", body: `{"a":` + strings.Repeat("[", 100000), status: 400, text: "Bad Request"},
		"no boundary":        {id: "machine.deploy", kind: "multipart/form-data", body: `x`, status: 400, text: "Bad Request"},
		"broken multipart":   {id: "machine.deploy", kind: "multipart/form-data; boundary=b", body: "--b\r\nContent", status: 400, text: "Bad Request"},
		"too large":          {id: "machine.deploy", kind: urlencoded, body: strings.Repeat("a", 1<<20+1), status: 413, text: "The request body is larger than 1048576 bytes."},
		"a number as 01bool": {id: "users.create", kind: urlencoded, body: "username=u&email=e@x.y&password=p&is_superuser=yes", status: 400, text: "Invalid is_superuser: Value must be one of: 0; 1 (not 'yes')"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bindRequest(t, c.id, c.query, c.kind, c.body, url.Values{"system_id": {"abc123"}})
			if err == nil {
				t.Fatal("accepted")
			}
			r, known := render(err)
			body := string(r.Body)
			if r.IsJSON {
				var b bytes.Buffer
				if err := api.WriteJSON(&b, r.Value); err != nil {
					t.Fatal(err)
				}
				body = strings.NewReplacer("\n", "", "    ", "", ": ", ":").Replace(b.String())
			}
			if !known || r.Status != c.status || body != c.text {
				t.Errorf("%d %q (known %v), want %d %q", r.Status, body, known, c.status, c.text)
			}
		})
	}
}

// The command line sends every part in base64, and no line end after the last boundary.
func TestBindMultipartBase64(t *testing.T) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part := func(disposition, content string) {
		p, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {disposition}, "Content-Transfer-Encoding": {"base64"}})
		if err != nil {
			t.Fatal(err)
		}
		enc := base64.StdEncoding.EncodeToString([]byte(content))
		for len(enc) > 76 {
			_, _ = io.WriteString(p, enc[:76]+"\n")
			enc = enc[76:]
		}
		_, _ = io.WriteString(p, enc+"\n")
	}
	long := strings.Repeat("script ", 100)
	part(`form-data; name="name"`, "probe")
	part(`form-data; name="tags"`, "a,b")
	part(`form-data; name="script"; filename="probe.sh"`, long)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	body := strings.TrimSuffix(b.String(), "\r\n")
	p, err := bindRequest(t, "node_scripts.create", "op=", w.FormDataContentType(), body, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := p.(*api.NodeScriptsCreateParams)
	if got.Name == nil || *got.Name != "probe" || !reflect.DeepEqual(got.Tags, []string{"a", "b"}) || got.Script == nil || string(got.Script.Content) != long || got.Script.Name != "probe.sh" {
		t.Errorf("bound %+v, script %+v", got, got.Script)
	}
	if len(got.Files) != 1 {
		t.Errorf("%d files", len(got.Files))
	}
}

func TestBindDynamicKeys(t *testing.T) {
	p, err := bindRequest(t, "machines.create", "", urlencoded, "op=&power_parameters_power_address=10.0.0.1&mac_addresses=aa&architecture=amd64&power_parameters_b=&oauth_token=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := p.(*api.MachinesCreateParams)
	if want := (url.Values{"power_parameters_power_address": {"10.0.0.1"}, "power_parameters_b": {""}}); !reflect.DeepEqual(got.Extra, want) {
		t.Errorf("Extra %v, want %v", got.Extra, want)
	}
	if want := []string{"power_parameters_power_address", "mac_addresses", "architecture", "power_parameters_b"}; !reflect.DeepEqual(got.Keys, want) {
		t.Errorf("Keys %v, want %v", got.Keys, want)
	}
	if !got.Blank("power_parameters_b") || got.Blank("architecture") || got.Blank("zone") || got.Has("zone") || !got.Has("architecture") {
		t.Error("Has and Blank do not tell what was sent")
	}
}

func TestRawUploadIsStreamed(t *testing.T) {
	p, err := bindRequest(t, "boot_resource_file_upload.upload", "", "application/octet-stream", "chunk", url.Values{"resource_id": {"1"}, "id": {"2"}})
	if err != nil {
		t.Fatal(err)
	}
	got := p.(*api.BootResourceFileUploadUploadParams)
	if b, err := io.ReadAll(got.Raw); err != nil || string(b) != "chunk" || got.ID != 2 || got.ResourceID != 1 {
		t.Errorf("%q %v %+v", b, err, got)
	}
}

// Every operation binds an empty request without a panic, and fails only with an answer of its own.
func TestEveryOperationBinds(t *testing.T) {
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			if op.Gone != "" {
				continue
			}
			path := url.Values{}
			for _, name := range api.PathParams(op.Path) {
				path.Set(name, "1")
			}
			if _, err := bindRequest(t, op.ID, "", urlencoded, "", path); err != nil {
				if r, known := render(err); !known || r.Status != http.StatusBadRequest {
					t.Errorf("%s: %v", op.ID, err)
				}
			}
		}
	}
}

func FuzzBind(f *testing.F) {
	var ids []string
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			if op.Gone == "" && op.Method != "GET" {
				ids = append(ids, op.ID)
			}
		}
	}
	f.Add(uint16(0), "op=x&a=%00", urlencoded, "tags[0=a&cpu_count=")
	f.Add(uint16(7), "", "application/json", `{"a":[{"b":1},null,2e9]}`)
	f.Add(uint16(9), "", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=a; filename=\"\"\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==\r\n--b--")
	f.Fuzz(func(t *testing.T, n uint16, query, kind, body string) {
		_, err := bindRequest(t, ids[int(n)%len(ids)], query, strings.ToValidUTF8(strings.Map(dropControl, kind), ""), body, url.Values{})
		if err == nil {
			return
		}
		if r, known := render(err); !known || r.Status >= 500 {
			t.Errorf("%v answers %d", err, r.Status)
		}
	})
}

func dropControl(r rune) rune {
	if r < ' ' || r == 127 {
		return -1
	}
	return r
}

func FuzzOp(f *testing.F) {
	f.Add("POST", "/MAAS/api/2.0/machines/op-allocate", "op=")
	f.Add("GET", "/MAAS/api/2.0/subnets/10.0.0.0%2F24/op-statistics", "op=%zz")
	f.Add("PATCH", "/MAAS/api/2.0/files//x", "")
	f.Add("GET", "/MAAS/api/2.0/scripts/a/b", "op=download&op=x")
	e := echo.New()
	var complain func(format string, args ...any) // of the input at hand
	for _, r := range oapi.Routes() {
		h := func(c echo.Context) error {
			values, op, ok := pathValues(c, r)
			if !ok {
				return unknownEndpoint(c)
			}
			for name, v := range values {
				if v[0] == "" || strings.ContainsRune(v[0], 0) {
					complain("%s is %q", name, v[0])
				}
			}
			q := &request{query: parsePairs(c.Request().URL.RawQuery)}
			if findOp(r.Handler, c.Request().Method, q.op(op)) == nil {
				return noSuchOp(r.Handler, c.Request().Method, q.op(op))
			}
			return nil
		}
		e.Any(r.Echo, h)
		if r.OpEcho != "" {
			e.Any(r.OpEcho, h)
		}
	}
	e.RouteNotFound("/*", unknownEndpoint)
	e.HTTPErrorHandler = func(err error, _ echo.Context) {
		if r, known := render(err); !known || r.Status >= 500 {
			complain("%v answers %d", err, r.Status)
		}
	}
	f.Fuzz(func(t *testing.T, method, path, query string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		u.RawQuery = query
		complain = t.Errorf
		e.ServeHTTP(httptest.NewRecorder(), &http.Request{Method: method, URL: u, Header: http.Header{}, Host: "h"})
	})
}

func TestUnknownErrorsRevealNothing(t *testing.T) {
	r, known := render(errors.New("dial postgres://user:secret@db"))
	if known || r.Status != 500 || strings.Contains(string(r.Body), "secret") {
		t.Errorf("%d %s known=%v", r.Status, r.Body, known)
	}
}
