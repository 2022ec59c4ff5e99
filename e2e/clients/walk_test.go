package clients

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	maas "github.com/canonical/gomaasclient/client"
	"github.com/juju/gomaasapi/v2"
)

// walk calls every method that gomaasclient has, by name, and keeps account of them: the name in a call is the method that is called,
// so that none can be said to be covered without being called.
type walk struct {
	t        *testing.T
	site     site
	c        *maas.Client
	raw      *maas.APIClient // for what the client has no method for
	subjects map[string]reflect.Value
	called   map[string]bool
}

func newWalk(t *testing.T, s site) *walk {
	t.Helper()
	c, err := maas.GetClient(s.url, s.key, "2.0")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := maas.GetAPIClient(s.url, s.key, "2.0")
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{t: t, site: s, c: c, raw: raw, subjects: map[string]reflect.Value{}, called: map[string]bool{}}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		w.subjects[v.Type().Field(i).Name] = v.Field(i)
	}
	// These two are exported and not in the Client.
	w.subjects["Discoveries"] = reflect.ValueOf(&maas.Discoveries{APIClient: *raw})
	w.subjects["Discovery"] = reflect.ValueOf(&maas.Discovery{APIClient: *raw})
	return w
}

// methods are the names of all methods: those of the Client's interfaces, and what its types have beyond these and beyond the plain
// client of gomaasapi that each of them embeds.
func (w *walk) methods() (names []string) {
	plain := reflect.TypeFor[*maas.APIClient]()
	for subject, v := range w.subjects {
		concrete := v.Type()
		if v.Kind() == reflect.Interface {
			for i := range v.Type().NumMethod() {
				names = append(names, subject+"."+v.Type().Method(i).Name)
			}
			concrete = v.Elem().Type()
		}
		for i := range concrete.NumMethod() {
			m := concrete.Method(i)
			if p, ok := plain.MethodByName(m.Name); ok && sameSignature(p.Type, m.Type) {
				continue
			}
			names = append(names, subject+"."+m.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// sameSignature compares methods apart from their receivers.
func sameSignature(a, b reflect.Type) bool {
	if a.NumIn() != b.NumIn() || a.NumOut() != b.NumOut() {
		return false
	}
	for i := 1; i < a.NumIn(); i++ {
		if a.In(i) != b.In(i) {
			return false
		}
	}
	for i := range a.NumOut() {
		if a.Out(i) != b.Out(i) {
			return false
		}
	}
	return true
}

// part runs one part of the walk as a subtest, and says whether it ran.
func (w *walk) part(t *testing.T, name string, do func(*walk)) (ran bool) {
	t.Run(name, func(t *testing.T) {
		ran = true
		in := *w
		in.t = t
		do(&in)
	})
	return ran
}

// call calls a method; the last result is its error.
func (w *walk) call(name string, args ...any) (any, error) {
	w.t.Helper()
	subject, method, _ := strings.Cut(name, ".")
	s, ok := w.subjects[subject]
	if !ok {
		w.t.Fatalf("%s: the client has no %s", name, subject)
	}
	m := s.MethodByName(method)
	if !m.IsValid() {
		w.t.Fatalf("%s: the client has no such method", name)
	}
	in := make([]reflect.Value, len(args))
	for i, a := range args {
		if in[i] = reflect.ValueOf(a); a == nil {
			in[i] = reflect.Zero(m.Type().In(i))
		}
	}
	w.called[name] = true
	out := m.Call(in)
	err, _ := out[len(out)-1].Interface().(error)
	if len(out) == 1 {
		return nil, err
	}
	return out[0].Interface(), err
}

// get calls a method that must succeed and returns its result.
func get[T any](w *walk, name string, args ...any) T {
	w.t.Helper()
	v, err := w.call(name, args...)
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	r, ok := v.(T)
	if !ok {
		w.t.Fatalf("%s returns %T", name, v)
	}
	return r
}

// do calls a method that must succeed and returns nothing.
func (w *walk) do(name string, args ...any) {
	w.t.Helper()
	if _, err := w.call(name, args...); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
}

// refused calls a method that the server must refuse with this status and text.
func (w *walk) refused(status int, text, name string, args ...any) {
	w.t.Helper()
	_, err := w.call(name, args...)
	se, ok := gomaasapi.GetServerError(err)
	if !ok || se.StatusCode != status || !strings.Contains(se.BodyMessage, text) {
		w.t.Errorf("%s: %v, want %d with %q", name, err, status, text)
	}
}

// unbuilt calls a method of an operation that answers 501, and finds it in the list of those.
func (w *walk) unbuilt(handler, action, name string, args ...any) {
	w.t.Helper()
	w.refused(501, "", name, args...)
	doc, err := os.ReadFile("../../openapi/divergences.md")
	if err != nil {
		w.t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^- ` + handler + `: (.*)$`).FindSubmatch(doc)
	if line == nil || !slices.Contains(strings.Split(string(line[1]), ", "), action) {
		w.t.Errorf("%s answers 501, and openapi/divergences.md does not list %s of %s", name, action, handler)
	}
}

// broken calls a method that never reaches a server, because the client itself fails with this text.
func (w *walk) broken(text, name string, args ...any) {
	w.t.Helper()
	_, err := w.call(name, args...)
	if _, sent := gomaasapi.GetServerError(err); err == nil || sent || !strings.Contains(err.Error(), text) {
		w.t.Errorf("%s: %v; it used to fail in the client with %q: give it a real expectation", name, err, text)
	}
}

// equal fails the test unless the two are the same.
func equal[T any](w *walk, what string, got, want T) {
	w.t.Helper()
	if !reflect.DeepEqual(got, want) {
		w.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// find returns the one element for which ok holds.
func find[T any](w *walk, what string, all []T, ok func(T) bool) T {
	w.t.Helper()
	i := slices.IndexFunc(all, ok)
	if i < 0 {
		w.t.Fatalf("%s is not among %d: %+v", what, len(all), all)
	}
	return all[i]
}

func ptr[T any](v T) *T { return &v }

// TestGomaasclientWhole calls every method of the client of the Terraform provider. What comes back is compared with what was sent.
func TestGomaasclientWhole(t *testing.T) {
	w := newWalk(t, dev(t, 4))
	all := true
	for _, p := range []struct {
		name string
		do   func(*walk)
	}{
		{"network", walkNetwork}, {"addresses", walkAddresses}, {"dns", walkDNS}, {"people", walkPeople}, {"site", walkSite}, {"images", walkImages},
		{"scripts", walkScripts}, {"devices", walkDevices}, {"machines", walkMachines}, {"racks", walkRacks}, {"discoveries", walkDiscoveries}, {"pods", walkPods},
	} {
		all = w.part(t, p.name, p.do) && all
	}
	if !all {
		t.Skip("parts were left out: the account of the methods is not complete")
	}
	n := 0
	for _, name := range w.methods() {
		if n++; !w.called[name] {
			t.Errorf("%s was never called", name)
		}
	}
	if n != 274 {
		t.Errorf("%d methods: gomaasclient v0.20.0 has 274", n)
	}
}
