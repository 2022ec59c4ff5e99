package metadata

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed/kickstart"
	"github.com/ingot-metal/ingot/storage"
)

// TestKickstartTalks runs what a kickstart's last script and its failure section say, with curl as Anaconda has it, against the service.
func TestKickstartTalks(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	s := newSite(t)
	id, _ := s.enlist()
	c := s.become(id, storage.StatusDeploying, func(_ *storage.Tx, n *storage.Node) error {
		n.Netboot, n.Osystem, n.DistroSeries = true, "rocky", "rocky9"
		return nil
	})
	text, err := kickstart.Render(kickstart.Input{OSystem: "rocky", Series: "rocky9", Firmware: "bios", Tree: "http://mirror.example/", Hostname: "node1", SystemID: id, MetadataURL: s.url + Prefix,
		Credentials: layout.Credentials{ConsumerKey: c.Consumer, TokenKey: c.Token, TokenSecret: c.Secret},
		Storage: []api.StorageItem{{ID: "vda", Type: api.StorageDisk, Name: "vda", PTable: "msdos", Boot: true, Disk: &api.DiskID{Name: "vda", Serial: `a"b\c`, Size: 8 << 30}},
			{ID: "vda-part1", Type: api.StoragePartition, Device: "vda", Number: 1, Size: 7 << 30}, {ID: "f", Type: api.StorageFormat, Volume: "vda-part1", FSType: "ext4"},
			{ID: "m", Type: api.StorageMount, Device: "f", Path: "/"}}})
	if err != nil {
		t.Fatal(err)
	}
	section := func(head string) string {
		_, rest, ok := strings.Cut(text, "\n"+head+"\n")
		body, _, end := strings.Cut(rest, "\n%end\n")
		if !ok || !end {
			t.Fatalf("no section %s in\n%s", head, text)
		}
		return body
	}
	node := func() (n storage.Node, events []string) {
		ctx := provisioner.WithActor(context.Background(), provisioner.SystemActor())
		b, err := s.p.Node(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		err = s.db.Read(ctx, func(tx *storage.Tx) error {
			rows, err := tx.Query(`select description from events where node_id = $1 order by id`, b.Node.ID)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var e string
				if err := rows.Scan(&e); err != nil {
					return err
				}
				events = append(events, e)
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.Node, events
	}
	if out, err := exec.Command("sh", "-c", section("%post --nochroot --erroronfail")).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	n, events := node()
	if n.Netboot || n.Status != storage.StatusDeploying {
		t.Errorf("after the installation the machine is %v, netboot %v", n.Status, n.Netboot)
	}
	if !strings.Contains(strings.Join(events, "\n"), "Telling the region") {
		t.Errorf("the events are %q", events)
	}
	// This machine has no disk of that serial number: nothing is written, and the region hears why.
	out, err := exec.Command("sh", "-c", section("%pre --erroronfail --log=/tmp/ingot-pre.log")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "The disk vda of the machine's model is not there. Nothing was written.") {
		t.Fatalf("%v\n%s", err, out)
	}
	if n, _ = node(); n.Status != storage.StatusFailedDeployment || !strings.Contains(n.ErrorDescription+n.Error, "is not there. Nothing was written.") {
		t.Errorf("the machine is %v, %q %q", n.Status, n.Error, n.ErrorDescription)
	}
}
