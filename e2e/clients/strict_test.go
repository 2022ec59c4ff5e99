package clients

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/juju/gomaasapi/v2"
)

// strict calls every method that the objects of gomaasapi have. Its interfaces are the account: a method that was never called on any
// object fails the test.
type strict struct {
	t      *testing.T
	c      gomaasapi.Controller
	called map[string]bool
}

// kinds are gomaasapi's interfaces, except those of pods: there are none.
var kinds = map[string]reflect.Type{
	"Controller": reflect.TypeFor[gomaasapi.Controller](), "File": reflect.TypeFor[gomaasapi.File](), "Fabric": reflect.TypeFor[gomaasapi.Fabric](),
	"VLAN": reflect.TypeFor[gomaasapi.VLAN](), "Zone": reflect.TypeFor[gomaasapi.Zone](), "Pool": reflect.TypeFor[gomaasapi.Pool](),
	"Domain": reflect.TypeFor[gomaasapi.Domain](), "BootResource": reflect.TypeFor[gomaasapi.BootResource](), "Device": reflect.TypeFor[gomaasapi.Device](),
	"Machine": reflect.TypeFor[gomaasapi.Machine](), "Space": reflect.TypeFor[gomaasapi.Space](), "Subnet": reflect.TypeFor[gomaasapi.Subnet](),
	"StaticRoute": reflect.TypeFor[gomaasapi.StaticRoute](), "Interface": reflect.TypeFor[gomaasapi.Interface](), "Link": reflect.TypeFor[gomaasapi.Link](),
	"FileSystem": reflect.TypeFor[gomaasapi.FileSystem](), "StorageDevice": reflect.TypeFor[gomaasapi.StorageDevice](), "Partition": reflect.TypeFor[gomaasapi.Partition](),
	"BlockDevice": reflect.TypeFor[gomaasapi.BlockDevice](), "OwnerDataHolder": reflect.TypeFor[gomaasapi.OwnerDataHolder](), "Tag": reflect.TypeFor[gomaasapi.Tag](),
}

// call calls a method of an object, as one of a kind, and returns what it returns; the error is apart.
func call(s *strict, kind string, object any, method string, args ...any) (results []any, err error) {
	s.t.Helper()
	iface, ok := kinds[kind]
	if !ok || !reflect.TypeOf(object).Implements(iface) {
		s.t.Fatalf("%T is no %s", object, kind)
	}
	if _, ok := iface.MethodByName(method); !ok {
		s.t.Fatalf("%s has no method %s", kind, method)
	}
	m := reflect.ValueOf(object).MethodByName(method)
	in := make([]reflect.Value, len(args))
	for i, a := range args {
		in[i] = reflect.ValueOf(a)
	}
	s.called[kind+"."+method] = true
	for _, r := range m.Call(in) {
		if r.Type() == reflect.TypeFor[error]() {
			err, _ = r.Interface().(error)
			continue
		}
		results = append(results, r.Interface())
	}
	return results, err
}

// one calls a method that must succeed and returns its first result.
func one[T any](s *strict, kind string, object any, method string, args ...any) (v T) {
	s.t.Helper()
	r, err := call(s, kind, object, method, args...)
	if err != nil {
		s.t.Fatalf("%s.%s: %v", kind, method, err)
	}
	if len(r) > 0 {
		var ok bool
		if v, ok = r[0].(T); !ok {
			s.t.Fatalf("%s.%s returns %T", kind, method, r[0])
		}
	}
	return v
}

// ok calls a method that returns an error only, which must be nil.
func (s *strict) ok(kind string, object any, method string, args ...any) {
	s.t.Helper()
	if _, err := call(s, kind, object, method, args...); err != nil {
		s.t.Fatalf("%s.%s: %v", kind, method, err)
	}
}

// fails calls a method whose error must be of a kind.
func (s *strict) fails(is func(error) bool, kind string, object any, method string, args ...any) {
	s.t.Helper()
	if _, err := call(s, kind, object, method, args...); !is(err) {
		s.t.Errorf("%s.%s: unexpected error %v", kind, method, err)
	}
}

// accessors calls all methods of an object, and of the objects in what they return, that need nothing and cannot fail.
func (s *strict) accessors(kind string, object any) {
	s.t.Helper()
	iface := kinds[kind]
	for i := range iface.NumMethod() {
		m := iface.Method(i)
		if m.Type.NumIn() != 0 || m.Type.NumOut() != 1 || m.Type.Out(0) == reflect.TypeFor[error]() || m.Name == "Pod" {
			continue
		}
		r, err := call(s, kind, object, m.Name)
		if err != nil {
			s.t.Fatal(err)
		}
		s.inside(m.Type.Out(0), reflect.ValueOf(r[0]))
	}
}

func (s *strict) inside(declared reflect.Type, v reflect.Value) {
	s.t.Helper()
	if declared.Kind() == reflect.Slice {
		for i := range v.Len() {
			s.inside(declared.Elem(), v.Index(i))
		}
		return
	}
	for name, t := range kinds {
		if t == declared && v.IsValid() && (v.Kind() != reflect.Pointer && v.Kind() != reflect.Interface || !v.IsNil()) {
			s.accessors(name, v.Interface())
		}
	}
}

// all calls the accessors of each.
func all[T any](s *strict, kind string, list []T) []T {
	s.t.Helper()
	if len(list) == 0 {
		s.t.Errorf("there is no %s", kind)
	}
	for _, x := range list {
		s.accessors(kind, x)
	}
	return list
}

// pick returns the one of a list for which ok holds.
func pick[T any](s *strict, what string, list []T, ok func(T) bool) T {
	s.t.Helper()
	i := slices.IndexFunc(list, ok)
	if i < 0 {
		s.t.Fatalf("%s is not among %d", what, len(list))
	}
	return list[i]
}

func same[T any](s *strict, what string, got, want T) {
	s.t.Helper()
	if !reflect.DeepEqual(got, want) {
		s.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// complete fails the test for what was never called.
func (s *strict) complete() {
	n := 0
	for kind, t := range kinds {
		for i := range t.NumMethod() {
			m := kind + "." + t.Method(i).Name
			if n++; m != "Machine.Pod" && !s.called[m] {
				s.t.Errorf("%s was never called", m)
			}
		}
	}
	s.t.Logf("%d methods of %d kinds", n, len(kinds))
}

// status says whether an error is the library's "unexpected", with that status of the answer.
func status(code int) func(error) bool {
	return func(err error) bool {
		return gomaasapi.IsUnexpectedError(err) && strings.Contains(err.Error(), fmt.Sprintf("ServerError: %d ", code))
	}
}
