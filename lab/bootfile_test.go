package lab

import (
	"strings"
	"testing"
)

func TestParsePXELinux(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want target
		err  string
	}{
		"append initrd": {"DEFAULT a\nLABEL a\nKERNEL k\nAPPEND initrd=i x=y\nIPAPPEND 2", target{kind: targetKernel, kernel: "k", initrds: []string{"i"}, cmdline: "initrd=i x=y BOOTIF=01-52-54-00-00-00-01"}, ""},
		"cpu64":         {"DEFAULT e\nLABEL e\nKERNEL ifcpu64.c32\nAPPEND e64 -- e32\nLABEL e64\nKERNEL k64\nLABEL e32\nKERNEL k32", target{kind: targetKernel, kernel: "k64"}, ""},
		"local":         {"DEFAULT a\nLABEL a\nLOCALBOOT 0", target{kind: targetLocal, disk: -1}, ""},
		"chain":         {"DEFAULT a\nLABEL a\nKERNEL chain.c32\nAPPEND hd0", target{kind: targetLocal, loader: "chain.c32"}, ""},
		"off":           {"DEFAULT a\nLABEL a\nCOM32 poweroff.c32", target{kind: targetPowerOff, loader: "poweroff.c32"}, ""},
		"no label":      {"DEFAULT b\nLABEL a\nKERNEL k", target{}, "no label"},
		"circle":        {"DEFAULT a\nLABEL a\nKERNEL ifcpu64.c32\nAPPEND a", target{}, "circle"},
		"empty":         {"", target{}, "no label"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parsePXELinux(c.text, "52:54:00:00:00:01")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || got.kind != c.want.kind || got.kernel != c.want.kernel || got.cmdline != c.want.cmdline || strings.Join(got.initrds, ",") != strings.Join(c.want.initrds, ",") || got.disk != c.want.disk || got.loader != c.want.loader {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestGRUBWords(t *testing.T) {
	g := &grubShell{vars: map[string]string{"m": "52:54", "e": ""}}
	n, err := parseGRUB("linux (http,h:1)/k cc:\\{'datasource_list': ['MAAS']\\}end_cc \"a ${m} \\\"b\" $e c=$m # comment\n")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(g.words(n[0].words), "|")
	// GRUB takes the single quotes away, as measured on the real one.
	if want := `linux|(http,h:1)/k|cc:{datasource_list:|[MAAS]}end_cc|a 52:54 "b|c=52:54`; got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	for _, bad := range []string{"linux cc:{x}", "menuentry 'a' {\n linux k\n", "if true; then echo", "echo 'a", "}", "a | b"} {
		if _, err := parseGRUB(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	n, err = parseGRUB("if [ \"$m\" = \"52:54\" ]; then set a=1; elif true; then set a=2; else set a=3; fi\nif [ -z \"$a\" ]; then set b=1; else set b=2; fi\n")
	if err != nil {
		t.Fatal(err)
	}
	g.m, g.ctx = &Machine{}, t.Context()
	if err := g.run(n); err != nil || g.vars["a"] != "1" || g.vars["b"] != "2" {
		t.Fatalf("%v %v", err, g.vars)
	}
}

func FuzzBootFiles(f *testing.F) {
	f.Add("DEFAULT a\nLABEL a\nKERNEL k\nAPPEND x\nIPAPPEND 2")
	f.Add("set default=0\nmenuentry 'x' { linux k; initrd i\n}\nif [ a = b ]; then echo; fi")
	f.Fuzz(func(t *testing.T, s string) {
		parsePXELinux(s, "52:54:00:00:00:01")
		parseGRUB(s)
		parsePreseed([]byte("#cloud-config\n" + s))
	})
}
