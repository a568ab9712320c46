module example.org/to-production

go 1.23

require example.org/clients/trainkit v0.0.0

replace example.org/clients/trainkit => ./trainkit
