// Upload by name, train two networks, compare them, put the better one into production and predict with it.
//
// The client in the folder `trainkit` is generated from the service's own description:
//
//	curl -s -H "Authorization: Bearer $TRAINKIT_KEY" $TRAINKIT_URL/openapi.json > openapi.json
//	openapi-generator-cli generate -c ../go.yaml -i openapi.json -o trainkit
//	go run . cancer.csv one-sample.csv
package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"example.org/clients/trainkit"
)

var (
	ctx = context.WithValue(context.Background(), trainkit.ContextAccessToken, os.Getenv("TRAINKIT_KEY"))
	api = newClient(os.Getenv("TRAINKIT_URL"))
)

func main() {
	log.SetFlags(0)
	upload(os.Args[1])

	jobs := []*trainkit.Job{train(32, 16), train(4)}
	best := jobs[0]
	for _, job := range jobs {
		if accuracy(job) > accuracy(best) {
			best = job
		}
	}
	for _, job := range jobs {
		mark := " "
		if job == best {
			mark = "*"
		}
		fmt.Printf("%s %s: validation accuracy %.3f\n", mark, job.Name, accuracy(job))
	}

	model := best.Result.Get().GetModel()
	checked(api.ModelsAPI.SetModelAlias(ctx, model, "production").Execute())
	request := trainkit.PredictRequest{Inputs: samples(os.Args[2])}
	answer := checked(api.ModelsAPI.Predict(ctx, best.Name+"@production").PredictRequest(request).Execute())
	for _, prediction := range answer.Predictions {
		fmt.Printf("predicted: %s (%.3f)\n", prediction.GetLabel(), *prediction.Probabilities[prediction.GetLabel()])
	}
}

func newClient(url string) *trainkit.APIClient {
	configuration := trainkit.NewConfiguration()
	configuration.Servers = trainkit.ServerConfigurations{{URL: url}}
	configuration.HTTPClient = &http.Client{Timeout: time.Minute}
	return trainkit.NewAPIClient(configuration)
}

// upload sends a table and waits until it can be trained on.
func upload(table string) {
	file, err := os.Open(table)
	if err != nil {
		log.Fatal(err)
	}
	request := api.DatasetsAPI.UploadDataset(ctx).Body(file).Name("cancer").Target("diagnosis")
	dataset := checked(request.Execute())
	for dataset.State != "ready" && dataset.State != "invalid" {
		time.Sleep(200 * time.Millisecond)
		dataset = checked(api.DatasetsAPI.GetDataset(ctx, dataset.Id).Execute())
	}
	fmt.Printf("%s:%d is %s: %d samples\n", dataset.Name, dataset.Version, dataset.State, dataset.GetSamples())
}

// train submits a job, follows its metrics, and returns it as it ended.
func train(hidden ...int32) *trainkit.Job {
	name := "cancer-" + strings.Trim(strings.ReplaceAll(fmt.Sprint(hidden), " ", "-"), "[]")
	dataset := trainkit.NewDatasetRef("cancer")
	dataset.SetTarget("diagnosis")
	network := trainkit.NewMlp("mlp")
	network.SetHidden(hidden)
	optimizer := trainkit.NewEmaMomentum("ema_momentum")
	optimizer.SetLr(0.1)
	loop := trainkit.NewTrainSpec()
	loop.SetEpochs(20)
	loop.SetBatchSize(32)
	spec := trainkit.NewJobSpec(
		trainkit.JobSpecDataset{DatasetRef: dataset},
		trainkit.ModelChoice{ModelSpec: &trainkit.ModelSpec{Mlp: network}},
	)
	spec.SetName(name)
	spec.SetOptimizer(trainkit.OptimizerChoice{OptimizerSpec: &trainkit.OptimizerSpec{EmaMomentum: optimizer}})
	spec.SetTrain(*loop)

	job := checked(api.JobsAPI.CreateJob(ctx).JobRequest(trainkit.JobRequest{JobSpec: spec}).Execute())
	for after, done := int64(0), false; !done; {
		page := checked(api.MetricsAPI.GetJobMetrics(ctx, job.Id).After(after).Names("val_accuracy").Wait(5).Execute())
		for _, row := range page.Data {
			fmt.Printf("  %s epoch %d: %s_%s %.3f\n", name, row.Epoch, row.Split, row.Name, *row.Value.Get())
		}
		after, done = page.Next, page.Done
	}
	job = checked(api.JobsAPI.GetJob(ctx, job.Id).Execute())
	if failure := job.Error.Get(); failure != nil {
		log.Fatalf("%s failed: %s %s", name, failure.Message, failure.Hint)
	}
	return job
}

// accuracy is the best one on the validation part; 0 without any.
func accuracy(job *trainkit.Job) float64 {
	if value := job.Metrics.Best["val_accuracy"]; value != nil {
		return *value
	}
	return 0
}

// samples reads rows of numbers below their names.
func samples(file string) []any {
	opened, err := os.Open(file)
	if err != nil {
		log.Fatal(err)
	}
	lines, err := csv.NewReader(opened).ReadAll()
	if err != nil {
		log.Fatal(err)
	}
	rows := []any{}
	for _, line := range lines[1:] {
		row := map[string]any{}
		for index, text := range line {
			value, err := strconv.ParseFloat(text, 64)
			if err != nil {
				log.Fatal(err)
			}
			row[lines[0][index]] = value
		}
		rows = append(rows, row)
	}
	return rows
}

// checked returns the answer, or ends with what the service says.
func checked[T any](answer T, _ *http.Response, err error) T {
	if failure, ok := err.(*trainkit.GenericOpenAPIError); ok {
		log.Fatalf("%s: %s", failure, failure.Body())
	}
	if err != nil {
		log.Fatal(err)
	}
	return answer
}
