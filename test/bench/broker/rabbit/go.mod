module github.com/shoalrun/shoal/test/bench/broker/rabbit

go 1.26.8

require github.com/rabbitmq/amqp091-go v1.16.0
