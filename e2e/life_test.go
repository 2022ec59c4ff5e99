package e2e

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/lab"
)

// all runs the life of every machine of a site at once.
func (s *site) all() {
	var wg sync.WaitGroup
	for _, m := range s.lab.Machines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.life(m)
		}()
	}
	wg.Wait()
}

func TestLife(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { newSite(t, siteOptions{machines: 4}).all() })
	t.Run("PostgreSQL", func(t *testing.T) { newSite(t, siteOptions{machines: 4, db: postgres(t)}).all() })
	t.Run("full environment", func(t *testing.T) { newSite(t, siteOptions{machines: 4, args: []string{"--full"}}).all() })
	t.Run("lost packets", func(t *testing.T) {
		// A loader of 4 MB by TFTP takes minutes at this loss; that is not what is tested here.
		newSite(t, siteOptions{machines: 2, firmwares: []lab.Firmware{lab.BIOSiPXE, lab.BIOSPXE}, faults: lab.Faults{Seed: 7, Loss: 0.05, BMCBusy: 1}}).all()
	})
}

// postgres makes a database of its own on the server that TEST_POSTGRES names.
func postgres(t *testing.T) string {
	t.Helper()
	dsn := os.Getenv("TEST_POSTGRES")
	if dsn == "" {
		t.Skip("TEST_POSTGRES is not set: scripts/postgres-test.sh sets it")
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("e2e_%d", time.Now().UnixNano())
	if _, err := db.Exec("create database " + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.Exec("drop database " + name + " with (force)"); err != nil {
			t.Error(err)
		}
		db.Close()
	})
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// TestTwoProcesses is the life with region and rack apart: they meet over mutual TLS only.
func TestTwoProcesses(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), ports: freePorts(t)}
	s.splitSite()
	s.machines(siteOptions{machines: 2, firmwares: []lab.Firmware{lab.BIOSiPXE, lab.UEFITFTP}})
	s.all()
}

// splitSite starts `ingot region` and `ingot rack` with lab images and the lab's network.
func (s *site) splitSite() {
	t := s.t
	t.Helper()
	images := filepath.Join(t.TempDir(), "images")
	command(t, "image", "lab", images)
	command(t, "image", "import", images, "--dir", s.dir)
	s.server = start(t, "region", "--dir", s.dir, "--http", s.ports.http, "--rack-link", s.ports.link)
	s.waitReady()
	s.connect()
	rack := s.startRack()
	command(t, "lab", "seed", "--url", "http://"+s.ports.http, "--apikey-file", filepath.Join(s.dir, "admin.apikey"), "--rack", rack)
}

// startRack starts `ingot rack` beside a region that runs and returns its system_id.
func (s *site) startRack() string {
	t := s.t
	t.Helper()
	raw, err := os.ReadFile(s.server.log)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(raw), "--fingerprint ")
	if !ok {
		t.Fatalf("the region prints no fingerprint:\n%s", raw)
	}
	fingerprint := strings.Fields(rest)[0]
	s.rack = start(t, "rack", "--dir", filepath.Join(s.dir, "the-rack"), "--region", "https://"+s.ports.link, "--region-http", "http://"+s.ports.http,
		"--fingerprint", fingerprint, "--secret-file", filepath.Join(s.dir, "pki", "rack-secret"), "--hostname", "rack-1",
		"--lab", s.ports.dhcp, "--tftp", s.ports.tftp, "--boot-http", s.ports.boot)
	rack := ""
	poll(t, 20*time.Second, "the rack has enrolled", func() (bool, string) {
		if err := s.rack.alive(); err != nil {
			t.Fatalf("the rack: %v", err)
		}
		l, err := s.client.RackControllersList(t.Context(), api.RackControllersListParams{Hostname: []string{"rack-1"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(l) == 0 {
			return false, "not in the list"
		}
		rack = l[0].SystemID
		return true, ""
	})
	return rack
}

// TestDeployedBootsWithoutRegion: a deployed machine that reboots gets its address and boots from its disk while the region is away.
func TestDeployedBootsWithoutRegion(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), ports: freePorts(t)}
	s.splitSite()
	s.machines(siteOptions{machines: 2, firmwares: []lab.Firmware{lab.BIOSiPXE, lab.UEFITFTP}})
	for _, m := range s.lab.Machines {
		id := s.enlist(m)
		s.commission(id)
		s.allocate(id)
		s.deploy(id)
		s.reach(id, "Deployed", 60*time.Second, "Deploying")
		poll(t, 20*time.Second, "the installed system runs", func() (bool, string) { return m.System() != nil, m.State() })
	}
	s.server.stop()
	for _, m := range s.lab.Machines {
		was := m.System().Address
		m.PowerOff()
		m.PowerOn()
		poll(t, 30*time.Second, "the installed system runs again", func() (bool, string) { return m.System() != nil, m.State() })
		if now := m.System(); now.Address != was || now.FirstBoot {
			t.Fatalf("after the reboot: %+v, before it had %s", now, was)
		}
	}
	// And the rack itself starts without the region.
	s.rack.kill()
	s.rack.run()
	m := s.lab.Machines[0]
	m.PowerOff()
	poll(t, 20*time.Second, "the rack serves again", func() (bool, string) {
		b, err := os.ReadFile(s.rack.log)
		return err == nil && strings.Count(string(b), "rack: HTTP") >= 2, "not yet"
	})
	m.PowerOn()
	poll(t, 30*time.Second, "the installed system runs again", func() (bool, string) { return m.System() != nil, m.State() })
}
