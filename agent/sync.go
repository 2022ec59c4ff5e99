package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Sync reports the inventory of an installed system: hardware sync. The file is a cloud-config with the machine's credentials, as a preseed has
// them. It returns when the region has taken the inventory.
func Sync(ctx context.Context, file string, c Config) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pre, err := ParsePreseed(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	rep := NewReporter(io.Discard)
	cl := NewClient(rep.Logf)
	cl.Unit = c.Unit
	if c.HTTP != nil {
		cl.HTTP = c.HTTP
	}
	md := metadataFor(cl, pre)
	if md.Anonymous() {
		return errors.New(file + " holds no credentials")
	}
	root := c.Root
	if root == "" {
		root = "/"
	}
	inv, err := Inventory(root)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	body, err := json.MarshalIndent(inv, "", " ")
	if err != nil {
		return err
	}
	zero := 0
	return md.Signal(ctx, Signal{Status: "WORKING", Name: resultInventory, ExitStatus: &zero,
		Files: map[string][]byte{resultInventory: body, resultInventory + ".out": body}})
}
