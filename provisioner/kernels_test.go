package provisioner

import (
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestParseKernel(t *testing.T) {
	for text, want := range map[string]kernelName{
		"ga-24.04":                  {platform: "generic", channel: "ga", year: 24, month: 4, flavor: "generic"},
		"hwe-22.04-lowlatency-edge": {platform: "generic", channel: "hwe", year: 22, month: 4, flavor: "lowlatency", edge: true},
		"hwe-edge-22.04":            {platform: "generic", channel: "hwe", year: 22, month: 4, flavor: "generic", edge: true},
		"hwe-t":                     {platform: "generic", channel: "hwe", year: 14, month: 4, flavor: "generic", letter: true},
		"xgene-uboot-ga-20.04":      {platform: "xgene-uboot", channel: "ga", year: 20, month: 4, flavor: "generic"},
		"xgene-uboot":               {platform: "xgene-uboot", flavor: "generic"},
		"generic":                   {platform: "generic", flavor: "generic"},
		"jammy":                     {platform: "generic", year: 22, month: 4, flavor: "generic", release: true},
		"hwe-rolling-edge":          {platform: "generic", channel: "hwe", year: 999, month: 999, flavor: "generic", edge: true},
	} {
		if got, ok := parseKernel(text); !ok || got != want {
			t.Errorf("%s: %+v, %t", text, got, ok)
		}
	}
	for _, bad := range []string{"", "ga", "ga-", "hwe-a", "hwe-z", "ga-x.y", "hwe-t-lowlatency", "ga--24.04", "GA-24.04", "ga-24.04\nx", "../x", "hwe-edge-", strings.Repeat("a", 80)} {
		if k, ok := parseKernel(bad); ok {
			t.Errorf("%q was taken as %+v", bad, k)
		}
	}
	order := []string{"generic", "xgene-uboot", "hwe-t", "trusty", "ga-14.04", "jammy", "ga-22.04", "ga-22.04-lowlatency", "xgene-uboot-ga-22.04", "hwe-22.04",
		"hwe-22.04-lowlatency", "hwe-22.04-edge", "noble", "ga-24.04", "hwe-rolling"}
	// A letter is worth less than a bare name is not: trusty itself has no weight at all.
	order[2], order[3] = order[3], order[2]
	got := slices.Clone(order)
	slices.Reverse(got)
	slices.SortFunc(got, func(a, b string) int {
		x, _ := parseKernel(a)
		y, _ := parseKernel(b)
		return compareKernels(x, y)
	})
	if !slices.Equal(got, order) {
		t.Errorf("order %q, want %q", got, order)
	}
	if !sameKernel("hwe-edge-22.04", "hwe-22.04-edge") || sameKernel("hwe-22.04", "ga-22.04") {
		t.Error("which names mean one kernel")
	}
}

func TestPickKernel(t *testing.T) {
	var all []storage.Kernel
	for _, a := range []string{"amd64/hwe-22.04", "amd64/ga-22.04", "amd64/ga-22.04-lowlatency", "amd64/hwe-22.04-lowlatency", "amd64/hwe-22.04-edge", "amd64/ga-18.04",
		"arm64/ga-22.04", "arm64/xgene-uboot-ga-22.04"} {
		all = append(all, storage.Kernel{Name: "ubuntu/jammy", Architecture: a})
	}
	for _, c := range []struct{ arch, requested, least, want, refusal string }{
		{"amd64/generic", "", "", "ga-22.04", ""},
		{"amd64/generic", "hwe-22.04", "", "hwe-22.04", ""},
		{"amd64/generic", "hwe-edge-22.04", "", "hwe-22.04-edge", ""},
		{"amd64/generic", "", "hwe-22.04", "hwe-22.04", ""},
		{"amd64/generic", "", "ga-20.04", "ga-22.04", ""},
		{"amd64/generic", "", "ga-22.04-lowlatency", "ga-22.04-lowlatency", ""},
		{"amd64/generic", "", "hwe-22.04-edge", "hwe-22.04-edge", ""},
		{"arm64/generic", "", "", "ga-22.04", ""},
		{"arm64/xgene-uboot", "", "", "xgene-uboot-ga-22.04", ""},
		{"amd64/generic", "hwe-24.04", "", "", "hwe-24.04 is not available for ubuntu/jammy on amd64/generic."},
		{"arm64/generic", "hwe-22.04", "", "", "hwe-22.04 is not available for ubuntu/jammy on arm64/generic."},
		{"amd64/generic", "generic", "", "", "generic is not available for ubuntu/jammy on amd64/generic."},
		{"amd64/generic", "ga-18.04", "", "", "ga-18.04 is too old to use on ubuntu/jammy."},
		{"amd64/generic", "ga-22.04", "hwe-22.04", "", "hwe_kernel(ga-22.04) is older than min_hwe_kernel(hwe-22.04)."},
		{"amd64/generic", "", "ga-24.04", "", "jammy has no kernels available which meet min_hwe_kernel(ga-24.04)."},
		{"s390x/generic", "", "", "", "jammy has no kernels available."},
	} {
		got, refusal := pickKernel(all, "ubuntu/jammy", c.arch, c.requested, c.least)
		if got != c.want || refusal != c.refusal {
			t.Errorf("%+v: %q, %q", c, got, refusal)
		}
	}
}

func FuzzKernelName(f *testing.F) {
	for _, s := range []string{"hwe-22.04-lowlatency-edge", "xgene-uboot-ga-20.04", "hwe-t", "ga-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, ok := parseKernel(text)
		if ok && compareKernels(k, k) != 0 || atLeast(text, text) != ok {
			t.Fatalf("%q", text)
		}
	})
}

// A synced Ubuntu is an environment of its own: what a machine boots from it depends on its least kernel, and racks are given all of it.
func TestSyncedEnvironment(t *testing.T) {
	x := newSyncSite(t, storagetest.New(t))
	m := x.mirror
	m.Ubuntu("noble", "24.04", "amd64", "ga-24.04", "1", 4000)
	hwe := m.Ubuntu("noble", "24.04", "amd64", "hwe-24.04", "1", 4000)
	kernel := hwe.Versions["1"]["items"]["boot-kernel"]
	kernel.KPackage = "linux-generic-hwe-24.04"
	hwe.Versions["1"]["items"]["boot-kernel"] = kernel
	m.Publish()
	x.selectRelease(x.source.ID, "ubuntu", "noble")
	if text := x.sync(); text != "" {
		t.Fatal(text)
	}
	storagetest.Fleet(t, x.db, 3)
	rack, err := x.s.RegisterRack(adminCtx(t), api.RackHello{Hostname: "rack", Architecture: "amd64", Interfaces: []api.RackInterface{}}, storage.NodeRack, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := x.s.SetConfig(adminCtx(t), "ingot_boot_environment", "ubuntu"); err != nil {
		t.Fatal(err)
	}
	least := map[string]string{"n00000": "", "n00001": "hwe-24.04", "n00002": "ga-26.04"}
	if err := x.db.Write(t.Context(), func(tx *storage.Tx) error {
		for id, k := range least {
			n, err := tx.Node(id)
			if err != nil {
				return err
			}
			n.MinHWEKernel, n.Status, n.Environment = k, storage.StatusCommissioning, "ubuntu"
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	snap, err := x.s.Snapshot(adminCtx(t), rack.SystemID, 0)
	if err != nil {
		t.Fatal(err)
	}
	boots := map[string]api.SnapHost{}
	for _, h := range snap.Hosts {
		boots[h.SystemID] = h
	}
	for id, kernel := range map[string]string{"n00000": "ga-24.04", "n00001": "hwe-24.04"} {
		b := boots[id].Boot
		if b == nil {
			t.Fatalf("%s boots nothing: %s", id, boots[id].Error)
		}
		for what, path := range map[string]string{"boot-kernel": b.Kernel, "boot-initrd": b.Initrd, "squashfs": b.Root} {
			if !strings.HasSuffix(path, "/ubuntu/amd64/"+kernel+"/noble/stable/"+what) {
				t.Errorf("%s: %s is %s", id, what, path)
			}
			sha, _, _ := strings.Cut(path, "/")
			if !slices.ContainsFunc(snap.Contents, func(c api.Content) bool { return c.SHA256 == sha }) {
				t.Errorf("%s: the rack is not told of %s", id, path)
			}
		}
		if b.Environment != "ubuntu" || b.PreseedPath != nodePreseed(id) {
			t.Errorf("%s: %+v", id, b)
		}
	}
	if h := boots["n00002"]; h.Boot != nil || !strings.Contains(h.Error, "noble has no kernels available which meet min_hwe_kernel(ga-26.04)") {
		t.Errorf("a kernel that there is not: %+v", h)
	}
	if e := snap.Enlist["amd64"]; e.Environment != "ubuntu" || e.PreseedPath != enlistPreseed {
		t.Errorf("strangers boot %+v", e)
	}

	// The kernel that is installed is the one that the stream names.
	x.read(func(tx *storage.Tx) error {
		n, err := tx.Node("n00001")
		if err != nil {
			return err
		}
		images, err := tx.RootImages()
		if err != nil {
			return err
		}
		image, ok, _ := resolveImage(images, n.Architecture, "noble", "", "")
		if !ok || image.Filetype != "squashfs" {
			t.Fatalf("image %+v", image)
		}
		if n.HWEKernel, err = x.s.chooseKernel(tx, &n, image, ""); err != nil || n.HWEKernel != "hwe-24.04" {
			t.Errorf("kernel %q, %v", n.HWEKernel, err)
		}
		n.Osystem, n.DistroSeries = "ubuntu", "noble"
		if p, err := kernelPackage(tx, &n); err != nil || p != "linux-generic-hwe-24.04" {
			t.Errorf("package %q, %v", p, err)
		}
		_, err = x.s.chooseKernel(tx, &n, image, "ga-24.04")
		refused(t, err, Invalid, "hwe_kernel(ga-24.04) is older than min_hwe_kernel(hwe-24.04).")
		return nil
	})
	// A machine that the system has no kernel for is not commissioned with it.
	if err := x.db.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node("n00002")
		if err != nil {
			return err
		}
		n.Status = storage.StatusReady
		return tx.UpdateNode(&n)
	}); err != nil {
		t.Fatal(err)
	}
	_, err = x.s.Commission(adminCtx(t), "n00002", CommissionParams{})
	refused(t, err, Invalid, "noble has no kernels available which meet min_hwe_kernel(ga-26.04).")
}
