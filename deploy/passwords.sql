-- Both roles get the password of deploy/.env. The superuser, which earlier versions used, loses its own.
\getenv password POSTGRES_PASSWORD
ALTER ROLE twitter_writer PASSWORD :'password';
ALTER ROLE twitter_reader PASSWORD :'password';
ALTER ROLE twitter PASSWORD NULL;
