package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func render(t testing.TB, v any) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteJSON(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteJSON(t *testing.T) {
	type inner struct {
		A int64 `json:"a"`
	}
	type outer struct {
		S    string         `json:"s"`
		F    float64        `json:"f"`
		List []inner        `json:"list"`
		Null *inner         `json:"null"`
		Map  map[string]any `json:"map"`
		Any  any            `json:"any"`
		B    []byte         `json:"b"`
		Opt  *string        `json:"opt,omitempty"`
		Skip string         `json:"-"`
		Time ModelTime      `json:"time"`
		Raw  json.RawMessage
	}
	got := render(t, outer{S: "é<&>\"\\\n\x01\xff\u2028", F: 8000, Map: map[string]any{"b": []int64{1}, "a": nil}, Raw: json.RawMessage(`{"x":[1,2]}`),
		Time: T1(time.Date(2018, 12, 4, 18, 11, 31, 894e6, time.UTC))})
	want := `{
    "s": "é<&>\"\\\n\u0001` + "\uFFFD\u2028" + `",
    "f": 8000.0,
    "list": [],
    "null": null,
    "map": {
        "a": null,
        "b": [
            1
        ]
    },
    "any": null,
    "b": "",
    "time": "2018-12-04T18:11:31.894Z",
    "Raw": {
        "x": [
            1,
            2
        ]
    }
}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for v, want := range map[any]string{nil: "null", true: "true", "x": `"x"`, 1.5: "1.5", 1e21: "1e+21", 0.00001: "1e-05", int64(-3): "-3"} {
		if got := render(t, v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
	if got := render(t, []Machine(nil)); got != "[]" {
		t.Errorf("nil list: %s", got)
	}
}

func TestWriteJSONRefuses(t *testing.T) {
	for _, v := range []any{math.NaN(), make(chan int), map[int]int{1: 1}} {
		if err := WriteJSON(io.Discard, v); err == nil {
			t.Errorf("%v: accepted", v)
		}
	}
	fault := errors.New("broken pipe")
	if err := WriteJSON(brokenWriter{fault}, make([]Machine, 1000)); !errors.Is(err, fault) {
		t.Errorf("error of the writer: %v", err)
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// fill sets every field of a value, so that a field which is lost on the way shows.
func fill(v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		if depth < 8 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if depth < 8 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			for i := range 2 {
				fill(v.Index(i), depth+1)
			}
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(2.5)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// What is written of the widest objects reads back as it was, by the standard decoder.
func TestRoundTrip(t *testing.T) {
	for _, v := range []any{new(Machine), new(Device), new(RackController), new(Subnet), new(EventPage), new(ScriptSet), new(BootSource), new(Stub), new(Raid)} {
		fill(reflect.ValueOf(v).Elem(), 0)
		back := reflect.New(reflect.TypeOf(v).Elem())
		text := render(t, v)
		if err := json.Unmarshal([]byte(text), back.Interface()); err != nil {
			t.Fatalf("%T: %v\n%s", v, err, text)
		}
		if again := render(t, back.Interface()); again != text {
			t.Errorf("%T changed on the way:\n%s\n%s", v, text, again)
		}
	}
}

func TestBootResourceExtra(t *testing.T) {
	text := render(t, BootResource{Name: "custom/x", Extra: map[string]any{"kflavor": "generic", "name": "not this one"}})
	var r BootResource
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "custom/x" || !reflect.DeepEqual(r.Extra, map[string]any{"kflavor": "generic"}) {
		t.Errorf("%+v of %s", r, text)
	}
	// The names that are no extras are those of the struct.
	filled := BootResource{}
	fill(reflect.ValueOf(&filled).Elem(), 0)
	filled.Extra = nil
	if err := json.Unmarshal([]byte(render(t, filled)), &r); err != nil || r.Extra != nil {
		t.Errorf("fields taken for extras: %v %v", r.Extra, err)
	}
}

func TestTimes(t *testing.T) {
	at := time.Date(2018, 12, 7, 20, 11, 8, 0, time.FixedZone("x", 3600))
	for _, c := range []struct {
		v    any
		want string
		back interface{ UnmarshalJSON([]byte) error }
	}{
		{T1(at), `"2018-12-07T19:11:08.000Z"`, new(ModelTime)},
		{T2(at), `"Fri, 07 Dec 2018 19:11:08 +0000"`, new(MailTime)},
		{T3(at), `"Fri, 07 Dec. 2018 19:11:08"`, new(LogTime)},
	} {
		if got := render(t, c.v); got != c.want {
			t.Errorf("%T: %s, want %s", c.v, got, c.want)
		}
		if err := c.back.UnmarshalJSON([]byte(c.want)); err != nil {
			t.Errorf("%T: %v", c.back, err)
		}
		if got := render(t, c.back); got != c.want {
			t.Errorf("%T back: %s", c.back, got)
		}
		if err := c.back.UnmarshalJSON([]byte(`"yesterday"`)); err == nil || !strings.Contains(err.Error(), "yesterday") {
			t.Errorf("%T: nonsense gives %v", c.back, err)
		}
	}
	var old ModelTime
	if err := json.Unmarshal([]byte(`"2018-12-07T19:11:08.000"`), &old); err != nil || !old.Equal(at) {
		t.Errorf("without Z: %v %v", old, err)
	}
	for d, want := range map[time.Duration]string{0: "0:00:00", 5 * time.Minute: "0:05:00", 25*time.Hour + time.Second: "1 day, 1:00:01", 72 * time.Hour: "3 days, 0:00:00"} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func benchMachines(n int) []Machine {
	list := make([]Machine, n)
	for i := range list {
		fill(reflect.ValueOf(&list[i]).Elem(), 5)
	}
	return list
}

func BenchmarkWriteJSONMachines(b *testing.B) {
	list := benchMachines(1000)
	var n bytes.Buffer
	_ = WriteJSON(&n, list)
	b.SetBytes(int64(n.Len()))
	for b.Loop() {
		if err := WriteJSON(io.Discard, list); err != nil {
			b.Fatal(err)
		}
	}
}
