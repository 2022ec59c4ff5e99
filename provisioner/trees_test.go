package provisioner

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/content"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed/windows"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const goodKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f user@desk"

// treeMirror is a mirror with the installer of a release.
type treeMirror struct {
	*httptest.Server
	files map[string]string
	gets  atomic.Int64
}

func newTreeMirror(t *testing.T) *treeMirror {
	m := &treeMirror{files: map[string]string{"images/pxeboot/vmlinuz": "kernel of 9", "images/pxeboot/initrd.img": strings.Repeat("initrd", 9000)}}
	m.describe("9.4", "x86_64")
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.gets.Add(1)
		body, ok := m.files[strings.TrimPrefix(r.URL.Path, "/os/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *treeMirror) describe(version, arch string) {
	m.files[".treeinfo"] = "[checksums]\nimages/pxeboot/initrd.img = sha256:" + shaOf([]byte(m.files["images/pxeboot/initrd.img"])) + "\nimages/pxeboot/vmlinuz = sha256:" +
		shaOf([]byte(m.files["images/pxeboot/vmlinuz"])) + "\nimages/boot.iso = md5:0\n\n; a remark\n[general]\nfamily = Rocky Linux\nversion = " + version + "\narch = " + arch +
		"\n\n[images-" + arch + "]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n"
}

// fetch runs the tree's newest job once, as a runner would.
func (x *site) fetchTree(id int64) error {
	x.t.Helper()
	var j storage.Job
	x.write(func(tx *storage.Tx) error {
		var n int64
		if err := tx.QueryRow(`select max(id) from jobs where kind = $1`, treeJob).Scan(&n); err != nil {
			return err
		}
		var err error
		j, err = tx.Job(n)
		return err
	})
	var args treeArgs
	if err := json.Unmarshal(j.Args, &args); err != nil || args.ID != id {
		x.t.Fatalf("the job is for another tree: %+v %v", args, err)
	}
	_, err := x.s.runTreeJob(context.Background(), j)
	return err
}

func newTreeSite(t *testing.T, db *storage.DB) (*site, *treeMirror) {
	x := newSite(t, db)
	store, err := content.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	x.s = New(Config{DB: db, Power: testDrivers(), Content: store})
	x.s.Images = quickImages
	x.write(func(tx *storage.Tx) error { return tx.InsertSSHKey(&storage.SSHKey{UserID: x.user.ID, Key: goodKey}) })
	return x, newTreeMirror(t)
}

func ptr[T any](v T) *T { return &v }

// TestInstallTree: a tree becomes an image that machines are deployed with, by Anaconda.
func TestInstallTree(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x, m := newTreeSite(t, db)
		admin, user := x.as(x.admin), x.as(x.user)
		tree, err := x.s.CreateInstallTree(admin, TreeInput{Name: ptr("rocky/rocky9"), URL: ptr(m.URL + "/os/"), Repositories: []string{"AppStream=" + m.URL + "/app/"}, Packages: []string{"vim"}})
		if err != nil || tree.State != TreeWaiting {
			t.Fatalf("%+v %v", tree, err)
		}
		id := x.ready("bios")
		if _, err := x.s.Deploy(user, id, DeployRequest{DistroSeries: "rocky/rocky9"}); kindOf(err) != Invalid {
			t.Errorf("deployed from a tree that was not fetched: %v", err)
		}
		if err := x.fetchTree(tree.ID); err != nil {
			t.Fatal(err)
		}
		if tree, err = x.s.InstallTree(admin, tree.ID); err != nil || tree.State != TreeReady || tree.ResourceID == nil {
			t.Fatalf("%+v %v", tree, err)
		}
		for _, body := range m.files {
			if !x.s.Content.Has(shaOf([]byte(body))) {
				t.Errorf("the content does not have %.20q", body)
			}
			f, err := x.s.OpenContent(context.Background(), shaOf([]byte(body)))
			if err != nil {
				t.Errorf("racks cannot fetch %.20q: %v", body, err)
				continue
			}
			f.Close()
		}
		x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "rocky/rocky9"}))
		x.job(id, api.PowerResult{State: "on"})

		var host api.SnapHost
		rack := x.rackNode()
		snap, err := x.s.Snapshot(context.Background(), rack, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range snap.Hosts {
			if h.SystemID == id {
				host = h
			}
		}
		b := host.Boot
		if b == nil || b.Environment != api.EnvironmentKickstart || b.Tree != tree.URL || b.PreseedPath != "/MAAS/metadata/latest/by-id/"+id+"/?op=get_kickstart" ||
			!strings.HasPrefix(b.Kernel, shaOf([]byte(m.files["images/pxeboot/vmlinuz"]))+"/rocky/amd64/generic/rocky9/tree/boot-kernel") || len(b.Interfaces) != 1 || host.Error != "" {
			t.Fatalf("the machine boots %+v, %+v", host, b)
		}
		if !slices.ContainsFunc(snap.Contents, func(c api.Content) bool { return strings.HasPrefix(b.Initrd, c.SHA256) }) {
			t.Error("the rack may not fetch the initrd")
		}

		base := func(*storage.Node) string { return "http://10.1.0.5:5248" }
		ks, err := x.s.Kickstart(context.Background(), id, base)
		if err != nil {
			t.Fatal(err)
		}
		_, token, err := x.s.MachineCredentials(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.Task(context.Background(), x.get(id).Node.ID, "http://rack/MAAS/metadata/"); kindOf(err) != Conflict {
			t.Errorf("the agent gets a task: %v", err)
		}
		for _, want := range []string{"url --url=" + tree.URL + "\n", "repo --name=AppStream --baseurl=" + m.URL + "/app/ --install\n", "\nvim\n", `sshkey --username=rocky "` + goodKey + `"`,
			"TOKEN_SECRET=" + token.TokenSecret, "METADATA=http://10.1.0.5:5248/MAAS/metadata/", "--ondisk=@DISK0@", "find_disk vda disk-", "part biosboot", "--bindto=mac",
			"> /etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg <<'INGOT_FILE'\n" + base64.StdEncoding.EncodeToString([]byte("# Written at installation.\ndatasource:\n"))[:40]} {
			if !strings.Contains(ks, want) {
				t.Errorf("the kickstart has no %q", want)
			}
		}
		if t.Failed() {
			t.Log(ks)
		}
		// An operator's template goes over it, and its preview shows no credentials.
		if _, err := x.s.SavePreseedTemplate(admin, "kickstart_rocky", "{{.preseed_data}}\n%post\necho {{.node.hostname | shell}}\n%end\n"); err != nil {
			t.Fatal(err)
		}
		if over, err := x.s.Kickstart(context.Background(), id, base); err != nil || !strings.HasPrefix(over, ks) || !strings.HasSuffix(over, "%post\necho "+x.get(id).Node.Hostname+"\n%end\n") {
			t.Errorf("the template does not count: %v\n%s", err, over)
		}
		d, err := x.s.Preview(user, id, "kickstart", "")
		if err != nil || d.Err != nil || d.Template != "kickstart_rocky" || strings.Contains(string(d.Content), token.TokenSecret) || !strings.Contains(string(d.Content), "find_disk vda") {
			t.Errorf("the preview is %+v %v", d, err)
		}
		if err := x.s.NetbootOff(context.Background(), x.get(id).Node.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.Kickstart(context.Background(), id, base); kindOf(err) != Conflict {
			t.Errorf("the kickstart with its credentials is given away after the installation: %v", err)
		}
		if kind, _, err := x.s.UserData(context.Background(), x.get(id).Node.ID); err != nil || kind != "none" {
			t.Errorf("user data %q %v", kind, err)
		}
		x.status(id, storage.StatusDeployed)
		if _, err := x.s.Kickstart(context.Background(), "zzzzzz", base); !isNotFound(err) {
			t.Errorf("an unknown machine: %v", err)
		}

		// A new kernel at the mirror replaces the old one; the same again changes nothing.
		m.files["images/pxeboot/vmlinuz"] = "kernel of 9, mended"
		m.describe("9.5", "x86_64")
		if tree, err = x.s.UpdateInstallTree(admin, tree.ID, TreeInput{Packages: []string{}}); err != nil || len(tree.Packages) != 0 || tree.State != TreeWaiting {
			t.Fatalf("%+v %v", tree, err)
		}
		for range 2 {
			if err := x.fetchTree(tree.ID); err != nil {
				t.Fatal(err)
			}
		}
		v, err := x.s.BootResource(admin, *tree.ResourceID)
		if err != nil || len(v.Sets) != 1 || len(v.Files[v.Sets[0].ID]) != 3 {
			t.Fatalf("%+v %v", v, err)
		}
		if err := x.s.DeleteInstallTree(admin, tree.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.BootResource(admin, *tree.ResourceID); kindOf(err) != NotFound {
			t.Errorf("the tree's image is still there: %v", err)
		}
		if err := x.s.DeleteInstallTree(admin, tree.ID); kindOf(err) != NotFound {
			t.Errorf("deleted twice: %v", err)
		}
	})
}

// rackNode is a rack without anything.
func (x *site) rackNode() string {
	x.t.Helper()
	rack, err := x.s.RegisterRack(context.Background(), api.RackHello{Hostname: "rack-1", Architecture: "amd64",
		Interfaces: []api.RackInterface{{Name: "eth0", Addresses: []string{"10.1.0.5/16"}}}}, storage.NodeRack, "f")
	if err != nil {
		x.t.Fatal(err)
	}
	return rack.SystemID
}

// TestInstallTreeMirrors: what a mirror says wrongly is not imported, and the tree tells why.
func TestInstallTreeMirrors(t *testing.T) {
	x, m := newTreeSite(t, storagetest.New(t))
	admin := x.as(x.admin)
	tree, err := x.s.CreateInstallTree(admin, TreeInput{Name: ptr("rocky/rocky9"), URL: ptr(m.URL + "/os")})
	if err != nil {
		t.Fatal(err)
	}
	good := m.files[".treeinfo"]
	sum := shaOf([]byte(m.files["images/pxeboot/vmlinuz"]))
	for want, info := range map[string]string{
		"404 Not Found":               "",
		"is for \"aarch64\"":          strings.ReplaceAll(good, "x86_64", "aarch64"),
		"is of version \"8.4\"":       strings.Replace(good, "9.4", "8.4", 1),
		"does not stay below":         strings.Replace(good, "kernel = images/pxeboot/vmlinuz", "kernel = ../../etc/passwd", 1),
		"no SHA-256 digest":           strings.Replace(good, "vmlinuz = sha256:", "vmlinuz = md5:", 1),
		"has not the SHA-256 digest":  strings.Replace(good, sum, strings.Repeat("0", 64), 1),
		"is empty":                    strings.Replace(good, "initrd = images/pxeboot/initrd.img", "", 1),
		"is no text":                  "\xff\xfe",
		"is larger than":              good + strings.Repeat("#", maxTreeInfo),
		"pxeboot/gone: the mirror":    strings.ReplaceAll(strings.ReplaceAll(good, sum, strings.Repeat("0", 64)), "pxeboot/vmlinuz", "pxeboot/gone"),
		"has an empty element":        strings.ReplaceAll(good, "images/pxeboot/vmlinuz", "images//vmlinuz"),
		"is for \"\", not for x86_64": "[general\nversion=9\n=\n:\n[\n]",
	} {
		if m.files[".treeinfo"] = info; info == "" {
			delete(m.files, ".treeinfo")
		}
		if err := x.fetchTree(tree.ID); err == nil {
			t.Errorf("%s: fetched", want)
		}
		if tree, err = x.s.InstallTree(admin, tree.ID); err != nil || tree.State != TreeFailed || !strings.Contains(tree.Error, want) {
			t.Errorf("%s: %s %q %v", want, tree.State, tree.Error, err)
		}
		if tree.ResourceID != nil {
			t.Fatal("there is an image")
		}
	}
	m.files[".treeinfo"] = good
	if err := x.fetchTree(tree.ID); err != nil {
		t.Fatal(err)
	}
	if tree, err = x.s.InstallTree(admin, tree.ID); err != nil || tree.State != TreeReady || tree.Error != "" {
		t.Errorf("%+v %v", tree, err)
	}
	// A job for a tree that was changed or deleted since does nothing.
	before := m.gets.Load()
	x.write(func(tx *storage.Tx) error {
		_, err := tx.Exec(`update install_trees set updated = updated + 1`)
		return err
	})
	if err := x.fetchTree(tree.ID); err != nil || m.gets.Load() != before {
		t.Errorf("an old order was carried out: %v", err)
	}
	// An image of the same name that is another's stays, and takes the tree's place.
	x.addImage("alma/alma9", "root-tgz", "")
	_, err = x.s.CreateInstallTree(admin, TreeInput{Name: ptr("alma/alma9"), URL: ptr(m.URL)})
	refused(t, err, Invalid, "There is an image alma/alma9")
}

func TestInstallTreeInput(t *testing.T) {
	x, _ := newTreeSite(t, storagetest.New(t))
	admin := x.as(x.admin)
	ok := TreeInput{Name: ptr("centos/centos9-stream"), URL: ptr("https://mirror.example/os/")}
	for want, f := range map[string]func(in *TreeInput){
		"This field is required":    func(in *TreeInput) { in.Name = ptr("") },
		"is not the name of a tree": func(in *TreeInput) { in.Name = ptr("ubuntu/noble") },
		"expected os/series":        func(in *TreeInput) { in.Name = ptr("centos/a b9") },
		"names no release":          func(in *TreeInput) { in.Name = ptr("centos/stream") },
		"not a valid architecture":  func(in *TreeInput) { in.Architecture = ptr("i386") },
		"Enter a valid URL":         func(in *TreeInput) { in.URL = ptr("ftp://mirror.example/") },
		"Enter a valid URL.":        func(in *TreeInput) { in.URL = ptr("http://user:secret@mirror.example/") },
		"a valid URL":               func(in *TreeInput) { in.URL = ptr("http://mirror.example/$(x)/") },
		"a valid URL.":              func(in *TreeInput) { in.URL = ptr("http://mirror.example/\n%pre") },
		"expected NAME=URL":         func(in *TreeInput) { in.Repositories = []string{"x"} },
		"is not an address of":      func(in *TreeInput) { in.Repositories = []string{"x=http://a/ --install"} },
		"is not a repository's":     func(in *TreeInput) { in.Repositories = []string{"x y=http://a/"} },
		"is not a package":          func(in *TreeInput) { in.Packages = []string{"vim\n%end"} },
		"timezone":                  func(in *TreeInput) { in.Timezone = ptr("Europe/Ber lin") },
		"At most":                   func(in *TreeInput) { in.Packages = slices.Repeat([]string{"vim"}, maxTreeList+1) },
	} {
		in := ok
		f(&in)
		_, err := x.s.CreateInstallTree(admin, in)
		refused(t, err, Invalid, want)
	}
	if _, err := x.s.CreateInstallTree(x.as(x.user), ok); kindOf(err) != Forbidden {
		t.Errorf("a plain user: %v", err)
	}
	if _, err := x.s.CreateInstallTree(admin, ok); err != nil {
		t.Fatal(err)
	}
	_, err := x.s.CreateInstallTree(admin, ok)
	refused(t, err, Invalid, "already exists")
	if _, err := x.s.UpdateInstallTree(admin, 99, TreeInput{}); kindOf(err) != NotFound {
		t.Errorf("an unknown tree: %v", err)
	}
}

// TestTreeRefusals: what Anaconda cannot do is said before anything happens to the machine.
func TestTreeRefusals(t *testing.T) {
	x, m := newTreeSite(t, storagetest.New(t))
	admin, user := x.as(x.admin), x.as(x.user)
	tree, err := x.s.CreateInstallTree(admin, TreeInput{Name: ptr("rocky/rocky9"), URL: ptr(m.URL + "/os/")})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.fetchTree(tree.ID); err != nil {
		t.Fatal(err)
	}
	id := x.ready("bios")
	if _, err := x.s.SetStorageLayout(admin, id, "lvm", layout.Options{}); err != nil {
		t.Fatal(err)
	}
	_, err = x.s.Deploy(user, id, DeployRequest{DistroSeries: "rocky/rocky9"})
	refused(t, err, Invalid, "does not read logical volumes")
	x.status(id, storage.StatusReady)
	_, err = x.s.Deploy(user, id, DeployRequest{DistroSeries: "rocky/rocky9", Ephemeral: true})
	refused(t, err, Invalid, "cannot be deployed to memory")
}

// Windows -------------------------------------------------------------------------------------------------------------------------

func files(p *api.InstallPlan) map[string]string {
	out := map[string]string{}
	for _, f := range p.Seed {
		out[f.Path] = f.Content
	}
	return out
}

func TestDeployWindows(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x, _ := newTreeSite(t, db)
		x.addImage("windows/win2019", "root-dd.gz", "")
		x.addImage("windows/win2016hv", "root-dd.gz", "")
		admin, user := x.as(x.admin), x.as(x.user)
		id := x.ready("uefi")
		_, err := x.s.Deploy(user, id, DeployRequest{DistroSeries: "windows/win2019"})
		refused(t, err, Invalid, "Invalid license key.")
		_, err = x.s.Deploy(user, id, DeployRequest{DistroSeries: "windows/win2019", LicenseKey: ptr("AAAAA")})
		refused(t, err, Invalid, "Invalid license key.")
		_, err = x.s.Deploy(user, id, DeployRequest{DistroSeries: "custom/debian", LicenseKey: ptr("AAAAA-BBBBB-CCCCC-DDDDD-EEEEE")})
		refused(t, err, Invalid, "custom has no license keys")
		x.status(id, storage.StatusReady)

		const stored, given = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", "11111-22222-33333-44444-55555"
		if _, err := x.s.CreateLicenseKey(admin, LicenseInput{DistroSeries: "windows/win2019", LicenseKey: stored}); err != nil {
			t.Fatal(err)
		}
		passwords := map[string]bool{}
		for _, c := range []struct {
			series string
			key    *string
			want   string
		}{{"win2019", nil, stored}, {"win2019", ptr(given), given}, {"win2016hv", nil, ""}} {
			x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "windows/" + c.series, LicenseKey: c.key}))
			x.job(id, api.PowerResult{State: "on"})
			plan := x.task(id).Install
			f := files(plan)
			if got := strings.Contains(f[windows.UnattendPath], "<ProductKey>"+c.want+"</ProductKey>"); got != (c.want != "") {
				t.Errorf("%s: the key %q is not in %s", c.series, c.want, f[windows.UnattendPath])
			}
			if !strings.Contains(f[windows.AdministratorsKeys], goodKey+"\r\n") || f[windows.CloudbasePath] == "" || !strings.Contains(f[windows.NetworkPath], `"physical"`) {
				t.Errorf("%s: the files are %v", c.series, f)
			}
			if len(plan.Storage) != 1 || plan.Storage[0].Type != api.StorageDisk {
				t.Errorf("%s: the plan writes %+v", c.series, plan.Storage)
			}
			if d, err := x.s.Preview(user, id, "unattend", ""); err != nil || d.Err != nil || strings.Contains(string(d.Content), "ProductKey") || strings.Contains(string(d.Content), "AdministratorPassword") ||
				!strings.Contains(string(d.Content), "<ComputerName>") {
				t.Errorf("%s: the preview is %+v %v", c.series, d, err)
			}
			if again := files(x.task(id).Install); again[windows.UnattendPath] != f[windows.UnattendPath] {
				t.Errorf("%s: asked twice, the plan is another", c.series)
			}
			if _, err := x.s.TakeMachinePassword(user, id); kindOf(err) != Conflict {
				t.Errorf("%s: the password is told while the machine is installed: %v", c.series, err)
			}
			nodeID := x.get(id).Node.ID
			if err := x.s.NetbootOff(context.Background(), nodeID); err != nil {
				t.Fatal(err)
			}
			if _, _, err := x.s.UserData(context.Background(), nodeID); err != nil {
				t.Fatal(err)
			}
			x.status(id, storage.StatusDeployed)
			for _, other := range []storage.User{x.admin, x.other} {
				if _, err := x.s.TakeMachinePassword(x.as(other), id); kindOf(err) != Forbidden {
					t.Errorf("%s: the password is told to %s: %v", c.series, other.Username, err)
				}
			}
			password, err := x.s.TakeMachinePassword(user, id)
			if err != nil || len(password) != 25 || passwords[password] {
				t.Errorf("%s: the password is %q, %v", c.series, password, err)
			}
			passwords[password] = true
			if _, err := x.s.TakeMachinePassword(user, id); kindOf(err) != NotFound {
				t.Errorf("%s: the password is told twice: %v", c.series, err)
			}
			x.write(func(tx *storage.Tx) error {
				for _, table := range []string{"events", "jobs", "script_results"} {
					var n int
					col := map[string]string{"events": "description", "jobs": "args", "script_results": "name"}[table]
					if err := tx.QueryRow(`select count(*) from `+table+` where `+col+` like $1`, "%"+password+"%").Scan(&n); err != nil {
						return err
					}
					if n > 0 {
						t.Errorf("the password is in %s", table)
					}
				}
				return nil
			})
			x.must(x.s.Release(user, id, ReleaseRequest{}))
			x.job(id, api.PowerResult{State: "off"})
			x.status(id, storage.StatusReady)
			x.write(func(tx *storage.Tx) error {
				if _, err := tx.NodeSecret(nodeID, secretLicense); !isNotFound(err) {
					t.Errorf("%s: a released machine keeps secrets: %v", c.series, err)
				}
				return nil
			})
		}
	})
}

// TestUnattendTemplate: an operator's answer file takes the place of ours, in both places where Windows looks.
func TestUnattendTemplate(t *testing.T) {
	x, _ := newTreeSite(t, storagetest.New(t))
	x.addImage("windows/win2022", "root-dd.gz", "")
	admin, user := x.as(x.admin), x.as(x.user)
	if _, err := x.s.SavePreseedTemplate(admin, "unattend_windows", "<unattend><owner>{{.node.hostname}}</owner></unattend>"); err != nil {
		t.Fatal(err)
	}
	id := x.ready("uefi")
	x.must(x.s.Deploy(user, id, DeployRequest{DistroSeries: "windows/win2022"}))
	f := files(x.task(id).Install)
	want := "<unattend><owner>" + x.get(id).Node.Hostname + "</owner></unattend>"
	n := 0
	for path, body := range f {
		if strings.EqualFold(path[strings.LastIndex(path, "/"):], "/unattend.xml") {
			if n++; body != want {
				t.Errorf("%s is %s", path, body)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d answer files", n)
	}
}

func TestLicenseRequired(t *testing.T) {
	for name, want := range map[string]bool{"windows/win2008r2": true, "windows/win2012r2": true, "windows/win2012hvr2": false, "windows/win2016dc": true, "windows/win2019": true, "windows/win10ent": true,
		"windows/win2016hv": false, "windows/win2022": false, "centos/win2019": false} {
		osystem, series, _ := strings.Cut(name, "/")
		if got := LicenseRequired(osystem, series); got != want {
			t.Errorf("LicenseRequired(%s) = %v", name, got)
		}
	}
}

// FuzzTreeInfo: a mirror may say anything; what is taken of it stays below the mirror and has a digest.
func FuzzTreeInfo(f *testing.F) {
	f.Add("[general]\nversion = 9\narch = x86_64\n[images-x86_64]\nkernel = a/b\ninitrd = c\n[checksums]\na/b = sha256:" + strings.Repeat("a", 64) + "\nc = sha256:" + strings.Repeat("b", 64))
	f.Add("[general\n=:\n[]")
	f.Fuzz(func(t *testing.T, text string) {
		info, err := parseTreeInfo([]byte(text), "x86_64", "rocky9")
		if err != nil {
			return
		}
		for _, p := range []string{info.kernel, info.initrd} {
			if strings.HasPrefix(p, "/") || strings.Contains("/"+p+"/", "/../") || len(info.sums[p]) != 64 {
				t.Errorf("%q with the digest %q", p, info.sums[p])
			}
		}
	})
}
