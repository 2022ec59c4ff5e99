package preseed

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestNames(t *testing.T) {
	p := func(name string) Prefix { x, _ := PrefixByName(name); return x }
	for _, c := range []struct {
		prefix string
		target Target
		want   string
	}{
		{"curtin_userdata", Target{"centos", "amd64", "generic", "centos70", "h1"}, "curtin_userdata_centos_amd64_generic_centos70_h1 curtin_userdata_centos_amd64_generic_centos70 curtin_userdata_centos_amd64_generic curtin_userdata_centos_amd64 curtin_userdata_centos curtin_userdata generic"},
		{"curtin", Target{"ubuntu", "arm64", "ga-24.04", "noble", "h1"}, "curtin_ubuntu_arm64_ga-24.04_noble_h1 curtin_arm64_ga-24.04_noble_h1 curtin_ubuntu_arm64_ga-24.04_noble curtin_arm64_ga-24.04_noble curtin_ubuntu_arm64_ga-24.04 curtin_arm64_ga-24.04 curtin_ubuntu_arm64 curtin_arm64 curtin_ubuntu curtin generic"},
		{"enlist", Target{}, "enlist__ enlist_ enlist generic"},
		{"autoinstall", Target{"ubuntu", "amd64", "generic", "noble", ""}, "autoinstall_ubuntu_amd64_generic_noble autoinstall_amd64_generic_noble autoinstall_ubuntu_amd64_generic autoinstall_amd64_generic autoinstall_ubuntu_amd64 autoinstall_amd64 autoinstall_ubuntu autoinstall"},
	} {
		if got := strings.Join(Names(p(c.prefix), c.target), " "); got != c.want {
			t.Errorf("%s: %s", c.prefix, got)
		}
	}
	for name, want := range map[string]string{"curtin": "curtin", "curtin_userdata": "curtin_userdata", "curtin_userdata_windows": "curtin_userdata", "curtin_user": "curtin", "generic": "generic", "commissioning_ubuntu": "commissioning",
		"enlist__": "enlist", "kickstart_rocky": "kickstart", "autoinstall_amd64_generic_noble_h-1.x": "autoinstall", "curtinx": "", "": "", "Curtin": "", "curtin/../x": "", "curtin_a\nb": "", "generic_x": "", strings.Repeat("curtin_", 60): ""} {
		if got, err := PrefixOf(name); got.Name != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", name, got.Name, err)
		}
	}
	if p("nothing").Name != "" || len(Prefixes()) != len(prefixes) {
		t.Error(Prefixes())
	}
}

func execute(t *testing.T, text string, values map[string]any) (string, error) {
	t.Helper()
	tmpl, err := ParseTemplate("x", text)
	if err != nil {
		return "", err
	}
	out, err := tmpl.Execute(values)
	return string(out), err
}

func TestFunctions(t *testing.T) {
	values := map[string]any{"s": "a'b\n\"c\"", "n": int64(3), "l": []any{"x", "y"}, "empty": "", "m": map[string]any{"k": "v"}}
	for text, want := range map[string]string{
		`{{.s | shell}}`: `'a'\''b` + "\n" + `"c"'`, `{{.s | json}}`: `"a'b\n\"c\""`, `{{.s | yaml}}`: `"a'b\n\"c\""`, `{{.s | xml}}`: `a&#39;b&#xA;&#34;c&#34;`,
		`{{"x y" | line}}`: "x y", `{{indent 2 "a\nb"}}`: "  a\n  b", `{{replace "a" "bb" "aca"}}`: "bbcbb", `{{join ", " .l}}`: "x, y", `{{range split "," "a,b"}}<{{.}}>{{end}}`: "<a><b>",
		`{{.empty | default "d"}}{{.n | default 5}}`: "d3", `{{base64 "a"}}`: "YQ==", `{{lower "A"}}{{upper "b"}}{{trim " c "}}`: "aBc", `{{if hasPrefix "a" "ab"}}1{{end}}{{if hasSuffix "b" "ab"}}2{{end}}{{if contains "b" "abc"}}3{{end}}`: "123",
		`{{printf "%05d %-4s| %q" .n "a" "b"}}`: `00003 a   | "b"`, `{{print 1 2}}{{println "x"}}`: "1 2x\n", `{{urlquery "a b&c"}}`: "a+b%26c", `{{len .l}}{{index .l 1}}{{index .m "k"}}{{slice "abc" 1 2}}`: "2yvb",
		`{{index .m "none" | default "d"}}`: "d", `{{define "t"}}[{{.}}]{{end}}{{template "t" .n}}`: "[3]", `{{range $i, $x := .l}}{{if $i}}{{break}}{{end}}{{$x}}{{else}}none{{end}}`: "x", `{{with .empty}}1{{else}}2{{end}}`: "2",
		`{{if and (eq .n 3) (not .empty)}}yes{{else if .s}}no{{end}}`: "yes", `{{/* note */}}{{- " x " -}} `: " x ", `{{.m.k}}`: "v", `plain`: "plain",
	} {
		if got, err := execute(t, text, values); got != want || err != nil {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

// secretive has a method; values have none, and a template reaches none.
type secretive struct{ Public string }

func (secretive) Method() string { return "called" }

func TestSandbox(t *testing.T) {
	deep := strings.Repeat("{{if .n}}", 5000) + strings.Repeat("{{end}}", 5000)
	for text, want := range map[string]string{
		`{{range 1000000000}}{{end}}`:                                                           "does more than",
		`{{range 100000}}{{range 100000}}{{end}}{{end}}`:                                        "does more than",
		`{{define "t"}}{{template "t" .}}{{end}}{{template "t" .}}`:                             "does more than",
		`{{define "t"}}{{template "t"}}{{template "t"}}{{end}}{{template "t"}}`:                 "does more than",
		`{{range 10000}}` + strings.Repeat("x", 1000) + `{{end}}`:                               "output is longer",
		`{{$s := "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}{{range 1000}}{{$s = print $s $s}}{{end}}`: "function of the template makes more",
		`{{$s := printf "%999s" "x"}}{{range 10000}}{{$t := print $s}}{{end}}`:                  "functions make more than",
		`{{printf "%9999999d" 1}}`:                                                              "printf knows", `{{printf "%*d" 9999999 1}}`: "printf knows", `{{printf "%[1]s" "x"}}`: "printf knows", `{{printf "%.999999999f" 1.0}}`: "printf knows",
		`{{range 100000}}{{$x := and 1 1 1 1 1 1 1 1 1 1 1 1}}{{end}}`: "does more than", `{{range 1000}}{{$x := 1}}` + strings.Repeat("{{$x = 2}}", 1000) + `{{end}}`: "does more than",
		`{{$s := printf "%999s" "x"}}{{range 100000}}{{if contains "y" $s}}{{end}}{{end}}`: "functions make more than",
		`{{indent 1000000 "x"}}`: "indent takes", `{{replace "" "xxxxxxxxxxxx" "y"}}`: "replace takes", `{{split "" "x"}}`: "split takes",
		`{{call .n}}`: `function "call" not defined`, `{{html .s}}`: `"html" not defined`, `{{tick}}`: `"tick" not defined`, `{{(js .s)}}`: `"js" not defined`, `{{if call .n}}{{end}}`: `not defined`,
		`{{readFile "/etc/passwd"}}`: `function "readFile" not defined`, `{{env "HOME"}}`: "not defined",
		`{{.nothing}}`: `no entry for key "nothing"`, `{{.m.nothing}}`: "no entry", `{{.s.Method}}`: "can't evaluate field", `{{"a\nb" | line}}`: "not allowed in a line",
		`{{if}}`: "missing value", `{{.s`: "unclosed action", `{{node.hostname|escape.json}}`: "not defined", `{{`: "", deep + `{{.nothing}}`: "",
		"\x00": "UTF-8 text", "\xff": "UTF-8 text", strings.Repeat("x", MaxTemplate+1): "at most", strings.Repeat("(", 3000): "",
		"{{" + strings.Repeat("(", 20000) + "1" + strings.Repeat(")", 20000) + "}}{{.nothing}}": "",
	} {
		out, err := execute(t, text, map[string]any{"n": int64(1), "s": "text", "m": map[string]any{}})
		if want == "" && err == nil && !strings.HasPrefix(text, "((") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.80s: %.80q, %v", text, out, err)
		}
		if err != nil && (strings.Contains(err.Error(), "template:") || len(err.Error()) > 600) {
			t.Errorf("%.80s: %v", text, err)
		}
	}
	// One run's work is its own: a template does not wear out.
	tmpl, err := ParseTemplate("x", `{{range 400000}}{{end}}ok`)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if out, err := tmpl.Execute(nil); err != nil || string(out) != "ok" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	// What a template sees has no methods.
	var check func(path string, v any)
	check = func(path string, v any) {
		switch v := v.(type) {
		case string, int64, bool:
		case []any:
			for i, x := range v {
				check(fmt.Sprintf("%s[%d]", path, i), x)
			}
		case map[string]any:
			for k, x := range v {
				check(path+"."+k, x)
			}
		default:
			t.Errorf("%s is a %T", path, v)
		}
	}
	check("", Sample(CloudConfig).Map())
	if reflect.TypeOf(secretive{}).NumMethod() != 1 {
		t.Fatal("the test is wrong")
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"commissioning", "{{.preseed_data}}packages: [jq]\n", ""},
		{"enlist", "{{.preseed_data}}", ""},
		{"generic", "{{.preseed_data}}", ""},
		{"curtin_userdata_ubuntu", "late_commands:\n  zz: [curtin, in-target, --, sh, -c, {{printf \"echo %s\" .node.hostname | yaml}}]\n", ""},
		{"curtin_userdata", "late_commands:\n  maas: [wget, --no-proxy, {{.node_disable_pxe_url | yaml}}, --post-data, {{.node_disable_pxe_data | yaml}}]\n", ""},
		{"autoinstall", "autoinstall:\n  version: 1\n", ""},
		{"kickstart", "{{.preseed_data}}%post\n%end\n", ""},
		{"unattend_windows", "<a b='{{.license_key | xml}}'/>", ""},
		{"commissioning", "packages: []\n", "first line"},
		{"commissioning", "#cloud-config\npackages: []\n", "names no datasource"},
		{"commissioning", "#cloud-config \ndatasource: {}\n", ""},
		{"curtin_userdata", "- a\n", "no YAML mapping"},
		{"curtin_userdata", "", "no YAML"},
		{"curtin_userdata", "a: [", "no YAML"},
		{"curtin_userdata", "a: 1\n---\nb: 1\n", "second YAML document"},
		{"curtin_userdata", "a: !!python/object/apply:os.system [reboot]\n", "not one of the plain"},
		{"curtin_userdata", "a: !x y\n", "not one of the plain"},
		{"curtin_userdata", "a: {1: x}\n", "not a text"},
		{"curtin_userdata", "a: {[1]: x}\n", ""},
		{"curtin_userdata", bomb(), "too large or too deep"},
		{"curtin_userdata", "a: &a [*a]\n", ""},
		{"curtin_userdata", "a: " + strings.Repeat("[", 5000), "no YAML"},
		{"curtin_userdata", strings.Repeat("[", 200) + strings.Repeat("]", 200), "too deep"},
		{"autoinstall", "autoinstall: {}\nx: 1\n", "nothing stands beside it"},
		{"unattend", "<a>", "no XML"},
		{"unattend", "", "no element"},
		{"unattend", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "document type"},
		{"other", "x", "begins with what it overrides"},
		{"commissioning", "{{.nothing}}", `line 1: map has no entry for key "nothing"`},
		{"commissioning", "#cloud-config\n{{if}}", "line 2: missing value for if"},
	} {
		_, _, err := Check(c.name, c.text)
		if c.want == "" && err != nil && !strings.Contains(c.text, "*a") && !strings.Contains(c.text, "[1]:") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %.60q: %v, want %q", c.name, c.text, err, c.want)
		}
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	return b.String()
}

// The example of docs/preseeds.md works.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/preseeds.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```yaml\n")
	example, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("no example")
	}
	_, out, err := Check("curtin_userdata", example)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readMapping(out)
	if err != nil || fmt.Sprint(at(m, "late_commands", "50_motd")) != "[curtin in-target -- sh -c echo sample.maas >/etc/motd]" || at(m, "late_commands", "60_db") != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Whatever text goes in comes out of a YAML reader as it was.
func FuzzMarshal(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		in := map[string]any{"k" + key: value, "l": []any{value, map[string]any{value: key}}}
		doc, err := Marshal(in)
		if err != nil {
			if strings.Contains(err.Error(), "UTF-8") {
				return
			}
			t.Fatal(err)
		}
		var out map[string]any
		if err := yaml.Unmarshal(doc, &out); err != nil || !reflect.DeepEqual(out, in) {
			t.Fatalf("%v\n%s\n%q", err, doc, out)
		}
	})
}

// A template, whatever it is, ends, in bounds; what quotes hold in it stays one value.
func FuzzTemplate(f *testing.F) {
	for _, s := range hostile {
		f.Add("v: {{.v | yaml}}\n", s)
	}
	for _, s := range []string{"{{range 100}}{{.v}}{{end}}", "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}", "{{printf \"%s\" .v | shell}}", "a: &a [*a]", "{{.node.hostname}}", "{{range $i := .v}}{{else}}{{continue}}{{end}}"} {
		f.Add(s, "x")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		out, err := func() ([]byte, error) {
			tmpl, err := ParseTemplate("x", text)
			if err != nil {
				return nil, err
			}
			return tmpl.Execute(map[string]any{"v": value})
		}()
		if len(out) > MaxOutput {
			t.Fatal("too long")
		}
		if err != nil {
			return
		}
		m, err := readMapping(out)
		if err == nil {
			if _, err := Marshal(m); err != nil && !strings.Contains(err.Error(), "larger") {
				t.Fatalf("read and not written: %v", err)
			}
		}
		if text == "v: {{.v | yaml}}\n" && strings.ToValidUTF8(value, "") == value && (err != nil || m["v"] != value) {
			t.Fatalf("%q: %v %q", value, err, m)
		}
	})
}

// Names and options of disks and mounts stay what they are, or are refused.
func FuzzCurtin(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s, s, s)
	}
	f.Add("sda", "root", "/", "noatime")
	f.Fuzz(func(t *testing.T, name, label, path, options string) {
		c := base("ubuntu", "noble")
		d := disk(name, label, true, "gpt")
		d.Disk.Path = path
		p := part(name, 2, 1<<30, "")
		fs := format(p.ID, "ext4", label)
		c.Storage = append(c.Storage[:0:0], d, p, fs, mount(p.ID, path, options))
		c.Hostname, c.Proxy, c.OwnerEmail, c.KernelPackage = name, label, path, options
		doc, err := c.Render()
		if err != nil {
			return
		}
		m := read(t, doc)
		list, _ := at(m, "storage", "config").([]any)
		if len(list) != 4 || at(list[0], "id") != name || label != "" && at(list[2], "label") != label || at(list[3], "path") != path || options != "" && at(list[3], "options") != options ||
			label != "" && at(m, "apt", "proxy") != label || options != "" && at(m, "kernel", "package") != options {
			t.Fatalf("%s", doc)
		}
	})
}
