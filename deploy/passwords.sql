-- The password of both roles is that of deploy/.env. The superuser, as whom earlier versions worked, loses its own.
\getenv password POSTGRES_PASSWORD
ALTER ROLE twitter_writer PASSWORD :'password';
ALTER ROLE twitter_reader PASSWORD :'password';
ALTER ROLE twitter PASSWORD NULL;
