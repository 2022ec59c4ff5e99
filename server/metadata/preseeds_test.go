package metadata

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

// installing makes a machine that is being deployed with Ubuntu: an image, a disk, a root file system.
func (s *site) installing() (string, creds) {
	s.t.Helper()
	id, _ := s.enlist()
	return id, s.become(id, storage.StatusDeploying, func(tx *storage.Tx, n *storage.Node) error {
		n.Netboot, n.Osystem, n.DistroSeries = true, "ubuntu", "noble"
		r := storage.BootResource{Name: "ubuntu/noble", Architecture: "amd64/ga-24.04"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "stable"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		file := storage.BootResourceFile{SetID: set.ID, Filename: "root.tgz", Filetype: "root-tgz", SHA256: strings.Repeat("ab", 32), Size: 5, Uploaded: 5, Complete: true}
		if err := tx.InsertBootResourceFile(&file); err != nil {
			return err
		}
		path := "/dev/disk/by-id/a"
		disk := storage.BlockDevice{NodeID: n.ID, Name: "sda", Type: "physical", Size: 100e9, BlockSize: 512, PartitionTable: "GPT", IDPath: &path}
		if err := tx.InsertBlockDevice(&disk); err != nil {
			return err
		}
		p := storage.Partition{BlockDeviceID: disk.ID, Number: 2, UUID: "11111111-1111-4111-8111-111111111111", Size: 90e9}
		if err := tx.InsertPartition(&p); err != nil {
			return err
		}
		root := "/"
		if err := tx.InsertFilesystem(&storage.Filesystem{NodeID: n.ID, PartitionID: &p.ID, Fstype: "ext4", MountPoint: &root}); err != nil {
			return err
		}
		return tx.AcquireFilesystems(n.ID)
	})
}

func (s *site) template(name, content string) {
	s.t.Helper()
	if _, err := s.p.SavePreseedTemplate(provisioner.WithActor(context.Background(), provisioner.SystemActor()), name, content); err != nil {
		s.t.Fatal(err)
	}
}

func TestCurtinInstaller(t *testing.T) {
	s := newSite(t)
	id, c := s.installing()
	auth := c.header(time.Now())
	status, script, _ := s.do("GET", "/MAAS/metadata/curtin/2012-03-01/curtin-installer", auth, "", nil, "X-Forwarded-Host", "10.0.0.2:5248")
	if status != 200 || !strings.HasPrefix(script, "#!/bin/sh\n") {
		t.Fatalf("%d %s", status, script)
	}
	// The program runs, with a curtin that shows what it is given.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "curtin"), []byte("#!/bin/sh\necho \"$1 $2\"\ncat \"${3#--config=}\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-s")
	cmd.Stdin, cmd.Env = strings.NewReader(script), []string{"PATH=" + dir + ":/usr/bin:/bin", "TMPDIR=" + dir}
	out, err := cmd.CombinedOutput()
	call, config, ok := strings.Cut(string(out), "\n")
	if err != nil || !ok || call != "install --install-deps" {
		t.Fatalf("%v\n%s", err, out)
	}
	var doc struct {
		Sources      map[string]map[string]string
		LateCommands map[string][]string `yaml:"late_commands"`
		Reporting    map[string]map[string]string
		Storage      struct{ Config []map[string]any }
	}
	if err := yaml.Unmarshal([]byte(config), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Sources["00_image"]["uri"] != "http://10.0.0.2:5248/images/"+strings.Repeat("ab", 32)+"/ubuntu/amd64/ga-24.04/noble/stable/root.tgz" || doc.Sources["00_image"]["type"] != "tgz" ||
		doc.LateCommands["maas"][2] != "http://10.0.0.2:5248/MAAS/metadata/latest/by-id/"+id+"/" || doc.Reporting["maas"]["token_secret"] != c.Secret || len(doc.Storage.Config) == 0 {
		t.Errorf("%s", config)
	}
	for path, want := range map[string]int{"2012-03-01/curtin-installer": 404, "curtin/2012-03-01/curtin-installer": 200, "curtin/latest/curtin-installer/x": 404} {
		if status, body, _ := s.do("GET", "/MAAS/metadata/"+path, auth, "", nil); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _, _ := s.do("GET", "/MAAS/metadata/curtin/2012-03-01/curtin-installer", "", "", nil); status != 404 {
		t.Errorf("without credentials: %d", status)
	}
	c = s.become(id, storage.StatusDeployed, func(_ *storage.Tx, n *storage.Node) error { n.Netboot = false; return nil })
	if status, body, _ := s.do("GET", "/MAAS/metadata/curtin/2012-03-01/curtin-installer", c.header(time.Now()), "", nil); status != 404 {
		t.Errorf("of a deployed machine: %d %s", status, body)
	}
}

// An operator's template autoinstall hands the machine to Ubuntu Server's installer.
func TestAutoinstall(t *testing.T) {
	s := newSite(t)
	id, c := s.installing()
	userData := func() string {
		t.Helper()
		status, body, _ := s.do("GET", "/MAAS/metadata/curtin/2012-03-01/user-data", c.header(time.Now()), "", nil)
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		return body
	}
	preseed := func() string {
		t.Helper()
		_, body, _ := s.do("GET", "/MAAS/metadata/latest/by-id/"+id+"/?op=get_preseed", "", "", nil)
		return body
	}
	if body := userData(); !strings.Contains(body, "ingot-agent") || !strings.Contains(preseed(), "mode: reboot") {
		t.Errorf("without a template: %s", body)
	}
	s.template("autoinstall_ubuntu_amd64", "packages: [{{.node.hostname | yaml}}]\n")
	body := userData()
	var doc struct {
		Autoinstall struct {
			Version  int
			Packages []string
			Storage  map[string]any
			Late     [][]string `yaml:"late-commands"`
			UserData any        `yaml:"user-data"`
		}
	}
	if err := yaml.Unmarshal([]byte(body), &doc); err != nil || !strings.HasPrefix(body, "#cloud-config\n") {
		t.Fatalf("%v\n%s", err, body)
	}
	if a := doc.Autoinstall; a.Version != 1 || len(a.Packages) != 1 || a.Storage["config"] == nil || len(a.Late) < 4 || a.UserData == nil {
		t.Errorf("%s", body)
	}
	if p := preseed(); strings.Contains(p, "power_state") || !strings.Contains(p, "metadata/curtin") {
		t.Errorf("the installer's boot is ended by cloud-init:\n%s", p)
	}
	// The installed system gets the user's own data, untouched.
	const own = "#!/bin/sh\necho {{.nothing}} 'quotes'\n"
	c = s.become(id, storage.StatusDeploying, func(_ *storage.Tx, n *storage.Node) error { n.Netboot, n.UserData = false, []byte(own); return nil })
	if status, body, _ := s.do("GET", "/MAAS/metadata/2012-03-01/user-data", c.header(time.Now()), "", nil); status != 200 || body != own {
		t.Errorf("%d %q", status, body)
	}
}

func TestPreseedTemplates(t *testing.T) {
	s := newSite(t)
	id, _ := s.enlist()
	preseed := func(path string) (int, string) {
		t.Helper()
		status, body, _ := s.do("GET", "/MAAS/metadata/latest/"+path, "", "", nil)
		return status, body
	}
	byID, enlist := "by-id/"+id+"/?op=get_preseed", "enlist-preseed/?op=get_enlist_preseed"
	s.template("commissioning", "{{.preseed_data}}hostname: {{.node.system_id | yaml}}\n")
	if status, body := preseed(byID); status != 200 || !strings.HasSuffix(body, "hostname: \""+id+"\"\n") || !strings.Contains(body, "token_secret") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := preseed(enlist); status != 200 || strings.Contains(body, "hostname:") || strings.Contains(body, "token") {
		t.Errorf("%d %s", status, body)
	}
	s.template("enlist_", "{{.preseed_data}}hostname: nobody\n")
	if status, body := preseed(enlist); status != 200 || !strings.HasSuffix(body, "hostname: nobody\n") {
		t.Errorf("%d %s", status, body)
	}
	// One that fails for this machine alone: it gets no other document, and its events say why.
	s.template("commissioning", `{{.preseed_data}}{{if ne .node.system_id "abc123"}}{{.nothing}}{{end}}`)
	if status, body := preseed(byID); status != 400 || !strings.HasPrefix(body, "Failed to render preseed: template commissioning: line 1: ") || strings.Contains(body, "token") {
		t.Errorf("%d %s", status, body)
	}
	told := 0
	err := s.db.Read(context.Background(), func(tx *storage.Tx) error {
		return tx.QueryRow("select count(*) from events where type = 'NODE_STATUS_EVENT_FAILED' and description like 'Failed to render preseed: template commissioning:%'").Scan(&told)
	})
	if err != nil || told != 1 {
		t.Errorf("%v: told %d times", err, told)
	}
}
