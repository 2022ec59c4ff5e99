package client_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
)

// A program that takes a machine with at least 4 GiB and deploys it.
func Example() {
	// A region that always has one, so that the example runs anywhere.
	region := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := map[string]string{"allocate": "Allocated", "deploy": "Deploying"}[r.URL.Query().Get("op")]
		_, _ = io.WriteString(w, `{"system_id": "abc123", "status_name": "`+status+`"}`)
	}))
	defer region.Close()

	c, err := client.New(client.Config{URL: region.URL, APIKey: "consumer:token:secret"})
	if err != nil {
		log.Fatal(err)
	}
	// Made again with the same key after a lost connection, the call takes no second machine.
	ctx := client.WithIdempotencyKey(context.Background(), "job-17")
	m, err := c.MachinesAllocate(ctx, api.MachinesAllocateParams{Mem: []string{"4096"}, Tags: []string{"ssd"}})
	if client.IsStatus(err, http.StatusConflict) {
		log.Fatal("no such machine is free")
	} else if err != nil {
		log.Fatal(err)
	}
	d, err := c.MachineDeploy(context.Background(), api.MachineDeployParams{SystemID: m.SystemID, UserData: client.Ptr("#cloud-config\n")})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.SystemID, d.StatusName)
	// Output: abc123 Deploying
}
